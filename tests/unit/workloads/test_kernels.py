"""The router's Triton kernels: run by Triton's interpreter where there is no GPU, compiled for GPUs that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from paths import SUPPORT

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="triton is not installed")

from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

from moeprof.workload.find import load  # noqa: E402
from moeprof.workloads.common import stream_kernels as stream  # noqa: E402
from moeprof.workloads.router import routing  # noqa: E402
from moeprof.workloads.router.kernels import gemm  # noqa: E402
from moeprof.workloads.router.kernels import routing as kernels  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS, EXPERTS, HIDDEN, INNER, BM, BT = 100, 8, 64, 128, 16, 16
CASES = [
    {"routing": "softmax_topk", "topk": 2}, {"routing": "softmax_topk", "topk": 3, "renormalise": False}, {"routing": "topk_softmax", "topk": 1},
    {"routing": "deepseek", "topk": 2, "groups": 4, "kept_groups": 2, "scale": 2.5}, {"routing": "deepseek", "topk": 3, "experts": 6},
]  # fmt: skip


def made(*shape: int, scale: float = 1.0, seed: int = 0) -> Any:
    source = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=source) * scale).to(torch.float16).to(DEVICE)


def ints(*shape: int) -> Any:
    return torch.full(shape, -7, dtype=torch.int32, device=DEVICE)


class Ordered:
    """The three launches that turn x into a sorted order, on poisoned buffers."""

    def __init__(self, more: dict[str, Any]) -> None:
        self.p = p = load("router").params(
            "tiny", {k: str(v) for k, v in ({"experts": EXPERTS, "tokens": TOKENS, "hidden": HIDDEN} | more).items()}
        )
        experts, topk, blocks = p["experts"], p["topk"], triton.cdiv(TOKENS, BT)
        self.x, self.router = made(TOKENS, HIDDEN), made(experts, HIDDEN, scale=HIDDEN**-0.5, seed=1)
        self.bias = (0.1 * made(experts, seed=2)).float()
        ep, kp = 8, triton.next_power_of_2(topk)
        self.ids, self.ranks, self.counts, self.base, self.load = (
            ints(TOKENS, topk),
            ints(TOKENS, topk),
            ints(blocks, ep),
            ints(blocks, ep),
            ints(ep),
        )
        self.weights = torch.full((TOKENS, topk), float("nan"), device=DEVICE)
        kernels.route[(blocks,)](
            self.x, self.router, self.bias, self.ids, self.weights, self.ranks, self.counts, TOKENS, p["scale"], H=HIDDEN, E=experts, EP=ep, K=topk, KP=kp,
            MODE=routing.ROUTINGS.index(p["routing"]), RENORMALISE=p["renormalise"] or p["routing"] == "topk_softmax",
            GROUPS=p["groups"], KEPT=p["kept_groups"], BT=BT, BK=32,
        )  # fmt: skip
        kernels.offsets[(2,)](self.counts, self.base, self.load, blocks, EP=ep, BE=4, BB=4)
        self.max_tiles = TOKENS * topk // BM + experts
        self.positions, self.rows, self.tile_experts = (
            ints(TOKENS, topk),
            ints(self.max_tiles * BM).zero_(),
            ints(self.max_tiles),
        )
        self.tile_rows, self.tiles = ints(self.max_tiles), ints(1)
        kernels.scatter[(blocks,)](
            self.ids, self.ranks, self.base, self.load, self.positions, self.rows, self.tile_experts, self.tile_rows, self.tiles, TOKENS, self.max_tiles,
            EP=ep, K=topk, KP=kp, BM=BM, BT=BT, TILES=triton.next_power_of_2(triton.cdiv(self.max_tiles, blocks)),
        )  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: f"{case['routing']}-{case['topk']}-{case.get('experts', EXPERTS)}")
def ordered(request: pytest.FixtureRequest) -> Ordered:
    return Ordered(request.param)


def test_the_routing_kernel_chooses_and_weighs_as_torch_does_in_float64(ordered: Ordered) -> None:
    logits = ordered.x.double() @ ordered.router.double().t()
    chosen, weights = routing.route(logits, ordered.bias.double(), ordered.p)
    assert torch.equal(ordered.ids.long(), chosen)
    assert torch.allclose(ordered.weights.double(), weights, rtol=1e-5, atol=1e-6)


def test_the_order_is_stable_and_whole_and_its_tiles_have_one_expert_each(ordered: Ordered) -> None:
    count = ordered.p["experts"]
    load_ = torch.bincount(ordered.ids.flatten().long(), minlength=8)
    assert torch.equal(ordered.load.long(), load_)
    assert ordered.positions.unique().numel() == ordered.ids.numel()
    tokens = torch.arange(TOKENS, device=DEVICE)[:, None].expand_as(ordered.ids)
    assert torch.equal(ordered.rows[ordered.positions.long()], tokens.int())
    assert torch.equal(ordered.tile_experts[ordered.positions.long() // BM], ordered.ids)
    for expert in range(count):
        mine = ordered.positions[ordered.ids == expert]  # in token order
        assert torch.equal(mine, mine[0] + torch.arange(len(mine), device=DEVICE).int()) if len(mine) else True
    tiles = int(ordered.tiles)
    assert tiles == int(((load_ + BM - 1) // BM).sum()) <= ordered.max_tiles
    rows = ordered.tile_rows[:tiles]
    assert int(rows.sum()) == ordered.ids.numel() and int(rows.min()) > 0 and int(rows.max()) <= BM


@pytest.mark.parametrize("programs", [3, 500])
def test_the_two_gemms_and_the_combine_are_the_layer(ordered: Ordered, programs: int) -> None:
    count = ordered.p["experts"]
    w13, w2 = (
        made(count, 2 * INNER, HIDDEN, scale=HIDDEN**-0.5, seed=3),
        made(count, HIDDEN, INNER, scale=INNER**-0.5, seed=4),
    )
    mixed = torch.stack([half.unflatten(1, (-1, 8)) for half in w13.chunk(2, dim=1)], 2).flatten(1, 3).contiguous()
    hidden, results = (
        made(ordered.max_tiles * BM, INNER) * float("nan"),
        made(ordered.max_tiles * BM, HIDDEN) * float("nan"),
    )
    out = torch.full_like(ordered.x, float("nan"))
    tile = {"BM": BM, "BK": 32, "GROUP": 2, "PROGRAMS": programs, "FLATTEN": False}
    wide, thin = (
        TensorDescriptor.from_tensor(mixed.view(-1, HIDDEN), [64, 32]),
        TensorDescriptor.from_tensor(w2.view(-1, INNER), [32, 32]),
    )
    gemm.gate_up[(programs,)](
        ordered.x, wide, hidden, ordered.rows, ordered.tile_experts, ordered.tiles, H=HIDDEN, N=2 * INNER, BN=64, **tile
    )
    gemm.down[(programs,)](
        TensorDescriptor.from_tensor(hidden, [BM, 32]),
        thin,
        results,
        ordered.tile_experts,
        ordered.tiles,
        INNER=INNER,
        N=HIDDEN,
        BN=32,
        **tile,
    )
    kernels.combine[(TOKENS, 1)](results, ordered.positions, ordered.weights, out, H=HIDDEN, K=ordered.p["topk"], BH=64)
    expected = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64, device=DEVICE)
    for expert in range(count):
        gate, up = (ordered.x.double() @ w13[expert].double().t()).chunk(2, dim=1)
        weight = (ordered.weights.double() * (ordered.ids == expert)).sum(1, keepdim=True)
        expected += weight * ((torch.nn.functional.silu(gate) * up) @ w2[expert].double().t())
    assert float((out - expected).norm() / expected.norm()) < 1e-3


def test_reading_ahead_reads_all_that_it_is_asked_for_and_nothing_behind_it() -> None:
    source, sink = torch.arange(1, 101, dtype=torch.float32, device=DEVICE), torch.zeros(4, device=DEVICE)
    kernels.prefetch[(4,)](source, sink, 90, BLOCK=32)
    assert sink.tolist() == [float(source[i : min(i + 32, 90)].sum()) for i in (0, 32, 64, 96)]


@pytest.mark.parametrize("weighted", [True, False])
def test_swiglu_and_gather(weighted: bool) -> None:
    gate_up, weight, out = (
        made(10, 192),
        torch.rand(10, device=DEVICE),
        torch.full((10, 96), float("nan"), device=DEVICE, dtype=torch.float16),
    )
    kernels.swiglu[(3, 1)](gate_up, weight, out, 10, INNER=96, BR=4, BI=128, WEIGHTED=weighted)
    gate, up = gate_up.double().chunk(2, dim=1)
    expected = torch.nn.functional.silu(gate) * up * (weight.double()[:, None] if weighted else 1)
    assert torch.allclose(out.double(), expected, rtol=2e-3, atol=1e-3)
    order, rows = torch.tensor([5, 0, 19, 7], device=DEVICE), torch.zeros(4, 192, dtype=torch.float16, device=DEVICE)
    kernels.gather[(4, 2)](gate_up, order, rows, H=192, K=2, BH=128)
    assert torch.equal(rows, gate_up[order // 2])


def test_the_reading_kernel_reads_every_value_once() -> None:
    data = torch.arange(4096, dtype=torch.float32, device=DEVICE)
    sums = torch.zeros(8, device=DEVICE)
    stream.read[(8,)](data, sums, BLOCK=128, TIMES=4)
    assert torch.equal(sums, data.view(8, -1).sum(1))


@pytest.mark.parametrize("capability", [80, 90, 100, 120])
def test_the_kernels_compile_for_gpus_that_are_not_here(capability: int) -> None:
    command = [sys.executable, "-P", "-W", "ignore", str(SUPPORT / "compile_kernels.py"), str(capability)]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "0"}, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[0])
    names = [f["kernel"] for f in found]
    assert names.count("gate_up") == names.count("down") == (2 if capability == 90 else 1)
    if capability == 90:  # those in Gluon: nothing spilled, and they fit an SM's shared memory
        assert [f["kernel"] for f in found[-6:]] == [*4 * ["mla"], "gate_up", "down"]
        assert all(
            f["stack"] <= 128 and f["local"] == 0 and f["shared"] <= 232_448 for f in found[-6:]
        )  # Triton 3.9 spills in the widest mla
