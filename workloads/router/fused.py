"""Launch the router's fused step: six kernels without the host and without copies of x; at decode a seventh prefetches weights.

The kernels are in ``kernels/routing.py``, ``kernels/gemm.py`` and ``kernels/hopper.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton

from moeprof.errors import UsageError
from moeprof.workload.model import Params
from moeprof.workloads.common.timing import seconds
from moeprof.workloads.common.tuning import fastest
from moeprof.workloads.router import glue
from moeprof.workloads.router.kernels import gemm, routing
from moeprof.workloads.router.layer import Layer
from moeprof.workloads.router.routing import ROUTINGS, grouped

DECODE_TOKENS = 64
Config = dict[str, Any]
ROUTES = ((128, 4, 3), (128, 8, 4), (256, 4, 3), (256, 8, 3), (512, 8, 2))  # depth, warps, stages of the routing kernel
SHARES = (0.0, 0.15, 0.3, 0.45, 0.6)  # of L2, to be filled with weights while the routing runs


def _ints(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int32, device="cuda")


class Choice:
    """The routing kernel and what it writes: ids [T, K], weights [T, K] (fp32), ranks, counts a block of tokens."""

    def __init__(self, params: Params, layer: Layer) -> None:
        tokens, experts, topk = params["tokens"], params["experts"], params["topk"]
        self.params, self.layer = params, layer
        self.ep, self.kp = triton.next_power_of_2(max(experts, 16)), triton.next_power_of_2(topk)
        if grouped(params) and self.ep != experts:
            raise UsageError(
                f"group-limited routing of {experts} experts has no kernel here", "give a power of two, 16 or more"
            )
        self.block = 16 if tokens <= 4096 else 64
        self.blocks = triton.cdiv(tokens, self.block)
        self.ids, self.ranks = _ints(tokens, topk), _ints(tokens, topk)
        self.weights = torch.zeros(tokens, topk, dtype=torch.float32, device="cuda")
        self.counts = _ints(self.blocks, self.ep)
        self.config: Config = (
            {"depth": 128, "warps": 4, "stages": 3} if self.block == 16 else {"depth": 64, "warps": 4, "stages": 4}
        )

    def tune(self, key: list[Any]) -> None:
        """Choose the fastest configuration: worth compiling if so few blocks run that latency decides."""
        hidden = triton.next_power_of_2(self.params["hidden"])
        candidates = [{"depth": d, "warps": w, "stages": s} for d, w, s in ROUTES if d <= hidden]

        def timed(config: Config) -> float:
            self.config = config
            return seconds(self.run, "cuda", 10, graph=True)

        self.config = fastest(["route", *key], candidates, timed)

    def run(self) -> None:
        """Launch it."""
        p, config = self.params, self.config
        routing.route[(self.blocks,)](
            self.layer.x, self.layer.router, self.layer.bias, self.ids, self.weights, self.ranks, self.counts, p["tokens"], p["scale"],
            H=p["hidden"], E=p["experts"], EP=self.ep, K=p["topk"], KP=self.kp, MODE=ROUTINGS.index(p["routing"]),
            RENORMALISE=p["renormalise"] or p["routing"] == "topk_softmax", GROUPS=p["groups"], KEPT=p["kept_groups"],
            BT=self.block, BK=min(config["depth"], triton.next_power_of_2(p["hidden"])), num_warps=config["warps"], num_stages=config["stages"],
        )  # fmt: skip


class Order:
    """The order by expert in tiles of BM rows: positions [T, K], the token of each row, expert and rows of each tile."""

    def __init__(self, choice: Choice, bm: int) -> None:
        p = choice.params
        self.choice, self.bm = choice, bm
        self.max_tiles = p["tokens"] * p["topk"] // bm + p["experts"]
        self.rows = self.max_tiles * bm
        self.base, self.load = _ints(choice.blocks, choice.ep), _ints(choice.ep)
        self.positions, self.tokens = _ints(p["tokens"], p["topk"]), _ints(self.rows)
        self.experts, self.tile_rows, self.tiles = _ints(self.max_tiles), _ints(self.max_tiles), _ints(1)

    def run(self) -> None:
        """Launch the routing, the scan and the scatter."""
        c, p = self.choice, self.choice.params
        share = triton.next_power_of_2(triton.cdiv(self.max_tiles, c.blocks))
        c.run()
        wide, blocks = min(16, c.ep), min(512, triton.next_power_of_2(c.blocks))
        routing.offsets[(c.ep // wide,)](
            c.counts, self.base, self.load, c.blocks, EP=c.ep, BE=wide, BB=blocks, num_warps=8
        )
        routing.scatter[(c.blocks,)](
            c.ids, c.ranks, self.base, self.load, self.positions, self.tokens, self.experts, self.tile_rows, self.tiles, p["tokens"], self.max_tiles,
            EP=c.ep, K=p["topk"], KP=c.kp, BM=self.bm, BT=c.block, TILES=share, num_warps=4,
        )  # fmt: skip


def interleaved(w13: torch.Tensor) -> torch.Tensor:
    """w13 [E, 2I, H] with 8 rows of gate, then 8 of up: a thread of the GEMM then has both factors of its products."""
    gate, up = w13.unflatten(1, (2, -1, 8)).unbind(1)
    return torch.stack([gate, up], 2).flatten(1, 3).contiguous()


@dataclass
class Experts:
    """The two GEMMs over one order; ``gate_up(config)`` and ``down(config)`` return their launches."""

    params: Params
    layer: Layer  # w13 interleaved
    order: Order

    def __post_init__(self) -> None:
        shape = {"dtype": self.layer.x.dtype, "device": "cuda"}
        self.hidden = torch.zeros(self.order.rows, self.params["inner"], **shape)
        self.results = torch.zeros(self.order.rows, self.params["hidden"], **shape)

    def gate_up(self, config: Config) -> Callable[[], object]:
        """h = silu(x @ gate) * (x @ up) of every row."""
        o, weights, n = self.order, self.layer.w13.flatten(0, 1), 2 * self.params["inner"]
        lists = (o.tokens, o.experts)
        if config["kind"] == "hopper":
            from moeprof.workloads.router.kernels import hopper

            w, h = (
                _hopper_descriptor(weights, config["bn"]),
                _hopper_descriptor(self.hidden, config["bm"] // 2, config["bn"] // 2),
            )
            return lambda: hopper.gate_up[_grid(config)](self.layer.x, w, h, *lists, o.tile_rows, o.tiles, KDIM=self.params["hidden"], N=n, **_blocks(config))  # fmt: skip
        w = _descriptor(weights, config["bn"], config["bk"])
        most = o.max_tiles * n // config["bn"]
        return lambda: gemm.gate_up[_grid(config, most)](self.layer.x, w, self.hidden, *lists, o.tiles, H=self.params["hidden"], N=n, **_blocks(config, most))  # fmt: skip

    def down(self, config: Config) -> Callable[[], object]:
        """y = h @ w2 of every row."""
        o, weights, n = self.order, self.layer.w2.flatten(0, 1), self.params["hidden"]
        if config["kind"] == "hopper":
            from moeprof.workloads.router.kernels import hopper

            h, w, y = (
                _hopper_descriptor(self.hidden, config["bm"]),
                _hopper_descriptor(weights, config["bn"]),
                _hopper_descriptor(self.results, config["bm"] // 2, config["bn"] // 2),
            )
            return lambda: hopper.down[_grid(config)](h, w, y, o.experts, o.tile_rows, o.tiles, KDIM=self.params["inner"], N=n, **_blocks(config))  # fmt: skip
        h, w = _descriptor(self.hidden, config["bm"], config["bk"]), _descriptor(weights, config["bn"], config["bk"])
        most = o.max_tiles * n // config["bn"]
        return lambda: gemm.down[_grid(config, most)](h, w, self.results, o.experts, o.tiles, INNER=self.params["inner"], N=n, **_blocks(config, most))  # fmt: skip


def _descriptor(tensor: torch.Tensor, *block: int) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(tensor, list(block))


def _hopper_descriptor(tensor: torch.Tensor, rows: int, columns: int = 64) -> Any:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor.from_tensor(tensor, [rows, columns], gl.NVMMASharedLayout(128, 16, 2))


def _programs(config: Config, most: int) -> int:
    """Programs of a launch: per_sm on each SM; 0: one a tile."""
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    return int(config["per_sm"] * sms or most)


def _grid(config: Config, most: int = 0) -> tuple[int]:
    return (_programs(config, most),)


def _blocks(config: Config, most: int = 0) -> dict[str, Any]:
    """The keyword arguments of a launch."""
    arguments = {
        "BM": config["bm"],
        "BN": config["bn"],
        "BK": config["bk"],
        "GROUP": config["group"],
        "PROGRAMS": _programs(config, most),
    }
    if config["kind"] == "hopper":
        return arguments | {"STAGES": config["stages"], "LAG": config["lag"], "num_warps": 4}
    return arguments | {"FLATTEN": config["flatten"], "num_warps": config["warps"], "num_stages": config["stages"]}


def _config(kind: str, block: tuple[int, int, int], warps: int, stages: int, per_sm: int, group: int = 8, **more: Any) -> Config:  # fmt: skip
    bm, bn, bk = block
    return {"kind": kind, "bm": bm, "bn": bn, "bk": bk, "warps": warps, "stages": stages, "per_sm": per_sm, "group": group, "lag": 0, "flatten": False, **more}  # fmt: skip


# (BN, BK), warps, stages, programs an SM; thin tiles with many bytes in flight, for GEMMs bound by their weights
THIN = (
    ((128, 128), 4, 3, 0), ((64, 256), 4, 3, 0), ((128, 64), 4, 5, 0), ((64, 128), 4, 4, 2), ((128, 128), 8, 4, 1), ((64, 64), 4, 3, 0),
)  # fmt: skip
WIDE = (((256, 64), 8, 3, 1), ((256, 64), 8, 4, 0), ((128, 64), 4, 3, 0), ((64, 64), 4, 3, 0))


def configs(params: Params, columns: int, depth: int) -> list[Config]:
    """Configurations worth timing for a GEMM of ``columns`` and ``depth``, by how many rows per expert gets on average."""
    rows = params["tokens"] * params["topk"] / params["experts"]
    if rows <= 48 or params["tokens"] <= DECODE_TOKENS:
        bm = 16 if rows + 2 * rows**0.5 <= 16 else 32  # an expert with more rows than a tile reads its weights twice
        candidates = [
            _config("triton", (bm, *block), warps, stages, per_sm, group=4) for block, warps, stages, per_sm in THIN
        ]
    else:
        bm = 128 if rows > 96 else 64
        candidates = [
            _config("triton", (bm, *block), warps, stages, per_sm, flatten=per_sm > 0)
            for block, warps, stages, per_sm in WIDE
        ]
        if bm == 128 and torch.cuda.get_device_capability() == (9, 0):
            candidates = [_config("hopper", (bm, 256, 64), 4, 4, 1, group=16, lag=1), *candidates[:1]]
    return [config for config in candidates if columns % config["bn"] == 0 and depth % config["bk"] == 0]


def _key(params: Params) -> list[Any]:
    """The cache key of a choice."""
    sizes = (params[k] for k in ("tokens", "experts", "topk", "hidden", "inner", "dtype"))
    return [torch.cuda.get_device_name(), triton.__version__, *sizes]


def tuned(params: Params, experts: Experts) -> tuple[Config, Config]:
    """The fastest configuration of each GEMM for these sizes on this GPU; the order must have been computed."""
    key = _key(params)
    hidden, inner = params["hidden"], params["inner"]
    fastest_configs = []
    for name, make, columns, depth in (
        ("gate_up", experts.gate_up, 2 * inner, hidden),
        ("down", experts.down, hidden, inner),
    ):
        choices = configs(params, columns, depth)
        fastest_configs.append(
            fastest([name, *key], choices, lambda config, make=make: seconds(make(config), "cuda", 10, graph=True))
        )
    return fastest_configs[0], fastest_configs[1]


@dataclass
class Plan:
    """All six launches."""

    choice: Choice
    experts: Experts
    out: torch.Tensor
    gate_up: Callable[[], object]
    down: Callable[[], object]
    ahead: glue.Prefetch

    def run(self) -> None:
        """Launch them."""
        self.ahead.begin()
        self.experts.order.run()
        self.gate_up()
        self.down()
        glue.combine(self.experts.results, self.experts.order.positions, self.choice.weights, self.out)
        self.ahead.join()

    def padding(self) -> float:
        """Rows of the tiles over rows of tokens."""
        order = self.experts.order
        return int(order.tiles) * order.bm / self.choice.ids.numel()


def plan(params: Params, layer: Layer, choice: Choice) -> Plan:
    """The launches in their fastest configuration; w13 of ``layer`` is interleaved.

    Raises:
        UsageError: there is no kernel for the dtype of the layer.
    """
    if layer.x.dtype not in (torch.bfloat16, torch.float16):
        raise UsageError(f"fused has no kernel for {params['dtype']}", "give dtype=bfloat16 or float16")
    candidates = configs(params, 2 * params["inner"], params["hidden"])
    order = Order(choice, candidates[0]["bm"] if candidates else 128)
    experts = Experts(params, layer, order)
    order.run()
    decode = params["tokens"] <= DECODE_TOKENS
    if decode:
        choice.tune(_key(params))
    up, down = tuned(params, experts)
    plan_without_prefetch = Plan(
        choice, experts, layer.out, experts.gate_up(up), experts.down(down), glue.Prefetch(layer.w13, 0)
    )
    return read_ahead(params, plan_without_prefetch) if decode else plan_without_prefetch


def read_ahead(params: Params, plan_without_prefetch: Plan) -> Plan:
    """The plan that prefetches the best part of w13: while four blocks route, memory would be idle."""
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    plans = {
        share: replace(
            plan_without_prefetch, ahead=glue.Prefetch(plan_without_prefetch.experts.layer.w13, int(share * l2))
        )
        for share in SHARES
    }
    shares = [{"share": share} for share in SHARES]
    best = fastest(
        ["ahead", *_key(params)], shares, lambda config: seconds(plans[config["share"]].run, "cuda", 4, graph=True)
    )
    return plans[best["share"]]
