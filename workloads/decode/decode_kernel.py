"""The inner loop of a decode kernel in CUDA C++: from a tile copied by all threads to a pipeline of bulk copies.

  baseline       the block copies a tile to shared memory, waits, computes, waits
  vectorized     no shared memory: eight 128-bit loads in flight a thread
  tma            the tile comes by cp.async.bulk, two stages: the next one loads while this one is computed
  tma_pipelined  six stages, a producer warp, lines evicted first from L2

cache [slices, rows, 128] bf16, query [slices, 128] bf16, out [slices, 128] fp32: out[s] = sum over r of (cache[s, r] . query[s]) cache[s, r] / rows.
Every byte is read once and used twice. The source is cuda/stream_tile.cu; nvcc builds it on first use. A whole attention in CUDA
does other work than these and stands among the variants of decode_attention.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Build, Params, Proof, Step, Variant, Workload
from moeprof.workloads.common import nvcc
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s
from moeprof.workloads.common.timing import captured, synchronise

SOURCE = "stream_tile.cu"
COLS, TILE_ROWS = 128, 64
NAMES = ("baseline", "vectorized", "tma", "tma_pipelined")
TOLERANCE = 1e-5  # relative Frobenius norm, whole and of a single slice: sums in fp32
SLICE_FACTOR = 10
SCHEMA = "(Tensor cache, Tensor query, Tensor(a2!) out, Tensor(a3!) parts, Tensor(a4!) counts, int variant) -> ()"


def tensors(params: Params, device: str) -> tuple[Any, Any, Any]:
    """cache [slices, rows, COLS] and query [slices, COLS] in bf16 from the seed, out [slices, COLS] in fp32."""
    import torch

    if params["rows"] < 1 or params["rows"] % TILE_ROWS or params["slices"] < 1:
        raise UsageError(
            f"rows={params['rows']} are no multiple of {TILE_ROWS}",
            f"give rows a multiple of {TILE_ROWS}, slices above 0",
        )
    source = torch.Generator(device=device).manual_seed(params["seed"])
    made = torch.empty(params["slices"], params["rows"], COLS, dtype=torch.bfloat16, device=device)
    for part in made:
        part.copy_(torch.randn(params["rows"], COLS, generator=source, device=device))
    query = torch.randn(params["slices"], COLS, generator=source, device=device).bfloat16()
    return made, query, torch.empty(params["slices"], COLS, dtype=torch.float32, device=device)


@cache
def library(capability: tuple[int, int]) -> tuple[ctypes.CDLL, nvcc.Built]:
    """The built source, its launchers typed."""
    built = nvcc.build(SOURCE, capability)
    opened = built.load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    opened.moeprof_stream.argtypes = [integer, *[pointer] * 5, integer, integer, integer, pointer]
    opened.moeprof_stream_programs.argtypes = [integer, ctypes.POINTER(integer)]
    return opened, built


@cache
def operator() -> Any:
    """The launcher as an operator of torch, which torch.compile and CUDA graphs accept; made once a process."""
    import torch

    @torch.library.custom_op("moeprof::stream", mutates_args=("out", "parts", "counts"), schema=SCHEMA)
    def stream(cache: Any, query: Any, out: Any, parts: Any, counts: Any, variant: int) -> None:
        opened, _ = library(torch.cuda.get_device_capability(cache.device))
        given = (t.data_ptr() for t in (cache, query, out, parts, counts))
        with torch.cuda.device(cache.device):
            current = torch.cuda.current_stream().cuda_stream
            status = opened.moeprof_stream(
                variant, *given, cache.shape[0], cache.shape[1], parts.shape[0] // 2, current
            )
        nvcc.check_launch(status, f"the launch of {NAMES[variant]}")

    @stream.register_fake
    def _(cache: Any, query: Any, out: Any, parts: Any, counts: Any, variant: int) -> None:
        return None

    return stream


def _step(
    params: Params, given: tuple[Any, Any, Any], run: Callable[[], None], scratch: tuple[Any, ...] = (), **more: Any
) -> Step:
    cached, query, out = given

    def poison() -> None:
        for buffer in (out, *scratch):
            buffer.fill_(float("nan"))

    moved = cached.nbytes + query.nbytes + out.nbytes
    return Step(run, lambda: out, poison, 4 * cached.numel(), moved, **more)


def build(name: str, params: Params, device: str) -> Step:
    """One version of the kernel, captured in a CUDA graph."""
    import torch

    given, variant = tensors(params, device), NAMES.index(name)
    opened, built = library(torch.cuda.get_device_capability())
    programs = ctypes.c_int()
    nvcc.check_launch(opened.moeprof_stream_programs(variant, ctypes.byref(programs)), f"the occupancy of {name}")
    blocks = programs.value
    if params["per_sm"] > 0:
        blocks = min(blocks, params["per_sm"] * torch.cuda.get_device_properties(0).multi_processor_count)
    parts = torch.zeros(2 * blocks, COLS, device=device)
    counts = torch.zeros(params["slices"], dtype=torch.int32, device=device)
    replay = captured(lambda: operator()(*given, parts, counts, variant))
    return _step(params, given, replay, (parts,), facts=lambda: {**built.usage(name), "blocks": blocks})


def reference(given: tuple[Any, Any, Any]) -> Any:
    """The reduction [slices, COLS] in float64, slice by slice."""
    import torch

    cached, query, _ = given
    return torch.stack(
        [((part.double() @ q.double()) @ part.double()) / len(part) for part, q in zip(cached, query, strict=True)]
    )


def prove(params: Params, device: str, step: Step) -> Proof:
    """Poison, run, compare every slice; run again, bit for bit."""
    import torch

    expected = reference(tensors(params, device))

    def fresh() -> Any:
        step.poison()
        step.run()
        synchronise(device)
        return step.output().clone()

    found = fresh()
    off = (found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    error = float((found.double() - expected).norm() / expected.norm())
    wrong = (~(off <= SLICE_FACTOR * TOLERANCE)).nonzero().flatten()[:8].tolist()
    if wrong or not error <= TOLERANCE:  # NaN never passes
        shown = None if error != error else error  # noqa: PLR0124
        return Proof(
            False,
            "",
            shown,
            TOLERANCE,
            f"the output differs from the reference by {error:.1e} of its size; wrong slices: {wrong}",
        )
    if not torch.equal(found, fresh()):
        return Proof(False, "", error, TOLERANCE, "two runs of the same input differ")
    return Proof(True, f"{len(found)} of {len(found)} slices, every element, twice the same", error, TOLERANCE)


def _faulty(wrong: Callable[[tuple[Any, Any, Any]], Any], params: Params, device: str) -> Step:
    given = tensors(params, device)
    return _step(params, given, lambda: given[2].copy_(wrong(given)))


FAULTS: dict[str, Build] = {
    "tile-dropped": partial(_faulty, lambda g: reference((g[0][:, TILE_ROWS:], g[1], g[2])) * (1 - TILE_ROWS / g[0].shape[1])),
    "tile-twice": partial(_faulty, lambda g: reference((g[0][:, [*range(g[0].shape[1]), *range(TILE_ROWS)]], g[1], g[2])) * (1 + TILE_ROWS / g[0].shape[1])),
    "next-query": partial(_faulty, lambda g: reference((g[0], g[1].roll(1, 0), g[2]))),
    "mean": partial(_faulty, lambda g: g[0].double().mean(1)),
    "zeros": partial(_faulty, lambda g: g[1] * 0),
}  # fmt: skip


def ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large GEMM, GB/s of reading."""
    import torch

    return {"gemm_tflop_per_s": gemm_tflop_per_s(torch.bfloat16, device), "read_gb_per_s": read_gb_per_s(device)}


DEFAULT: dict[str, Any] = {"slices": 1024, "rows": 8192, "per_sm": 2, "seed": 0}

WORKLOAD = Workload(
    name="decode_kernel",
    summary="the inner loop of a decode kernel in CUDA: tile by all threads, wide loads, bulk copies, a pipeline of bulk copies",
    variants=(
        Variant("baseline", "tile to shared memory, barrier, compute, barrier", partial(build, "baseline"), nvcc.needs_nvcc),
        Variant("vectorized", "eight 128-bit loads in flight a thread, no shared memory", partial(build, "vectorized"), nvcc.needs_nvcc),
        Variant("tma", "bulk copies on an mbarrier, two stages", partial(build, "tma"), nvcc.needs_tma),
        Variant("tma_pipelined", "six stages, a producer warp, evict first", partial(build, "tma_pipelined"), nvcc.needs_tma),
    ),
    baseline="baseline",
    optimized="tma_pipelined",
    presets={"default": DEFAULT, "full": {**DEFAULT, "per_sm": 0}, "gb10": {**DEFAULT, "slices": 64}, "tiny": {**DEFAULT, "slices": 3, "rows": 256}},
    prove=prove,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=FAULTS,
    ceilings=ceilings,
    shows="memory is saturated by bytes in flight: wide loads nearly do it, bulk copies do it without threads or registers",
    counted=1,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
