"""Decode attention: one new token a sequence against its whole KV cache, from a loop over heads to one pass.

  naive     per head: matmul, softmax, matmul
  sdpa      scaled_dot_product_attention, its backend pinned (parameter backend: flash or cudnn)
  math      the same with the math backend: what runs where the fused kernels are missing; it may lose to naive
  split_kv  one Triton kernel: the heads of a group share a tile, all blocks of all sequences in equal parts, combined inside
  cuda      the one pass in CUDA C++ (cuda/decode_attention.cu): bulk copies by a producer warp, tensor cores
  paged     the Triton pass over pages and a block table (parameter page)

q [B, HQ, D], k and v [B, HKV, S, D], HQ / HKV heads share keys. The work is to read the cache once: B S HKV 2 D values. The tail
past each sequence's length is NaN and the table's entries past it point outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Build, Params, Proof, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common import nvcc
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import attention
from moeprof.workloads.decode.attention import Cache

SDPA_NAMES = {0: "MATH", 1: "FLASH_ATTENTION", 2: "EFFICIENT_ATTENTION", 3: "CUDNN_ATTENTION"}  # torch's numbers
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}


def cache(params: Params, device: str) -> Cache:
    """The queries and the cache from the seed; every sequence's tail is NaN."""
    import torch

    if params["q_heads"] % params["kv_heads"]:
        raise UsageError(
            f"{params['q_heads']} query heads cannot share {params['kv_heads']} kv heads", "give a multiple"
        )
    if params["backend"] not in ("flash", "cudnn"):
        raise UsageError(f"parameter backend={params['backend']!r} is not a backend", "give flash or cudnn")
    counts, width = attention.lengths(params), params["head_dim"]
    shape = (len(counts), params["kv_heads"], attention.capacity(params), width)
    q = attention.normal((len(counts), params["q_heads"], width), params, device, 0)
    k, v = attention.normal(shape, params, device, 1), attention.normal(shape, params, device, 2)
    shared = q.unflatten(1, (params["kv_heads"], -1)).float().mean(2)
    for sequence, count in enumerate(counts):
        attention.needles(k[sequence], shared[sequence], width**-0.5, count)
        k[sequence, :, count:] = v[sequence, :, count:] = float("nan")
    return Cache(q, k, v, torch.tensor(counts, dtype=torch.int32, device=device), torch.empty_like(q))


def _clone(it: Cache) -> Cache:
    return replace(it, k=it.k.clone(), v=it.v.clone())


def _step(params: Params, device: str, it: Cache, make: Callable[[Cache], Callable[[], object]], **more: Any) -> Step:
    tokens, width = sum(attention.lengths(params)), params["head_dim"]
    moved = it.k.element_size() * (2 * tokens * params["kv_heads"] * width + it.q.numel() + it.out.numel())
    run = attention.cold(params, device, it, _clone, 2 * it.k.nbytes, make)
    return attention.step(run, it.out, (), 4 * tokens * params["q_heads"] * width, moved, **more)


def build_naive(params: Params, device: str) -> Step:
    """A loop over the heads: three or four launches each."""
    import torch

    group, scale = params["q_heads"] // params["kv_heads"], params["head_dim"] ** -0.5

    def make(it: Cache) -> Callable[[], None]:
        parts = attention.alike(it.lengths.tolist())

        def run() -> None:
            for part, count in parts:
                for head in range(params["q_heads"]):
                    k, v = it.k[part, head // group, :count], it.v[part, head // group, :count]
                    scores = torch.bmm(it.q[part, head : head + 1], k.transpose(1, 2)) * scale
                    it.out[part, head : head + 1] = torch.bmm(torch.softmax(scores, -1), v)

        return run

    return _step(params, device, cache(params, device), make, slack=attention.ROUNDED)


def _build_sdpa(backend: str | None, params: Params, device: str) -> Step:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = getattr(SDPBackend, BACKENDS[backend or params["backend"]])
    if device == "cpu" and backend is None:
        chosen = SDPBackend.MATH  # a CPU has no choice of grouped-query kernels in every version

    def facts() -> dict[str, Any]:
        return {"pinned": chosen.name, "backends that can": ", ".join(usable(first)) if device == "cuda" else "-"}

    def make(it: Cache) -> Callable[[], None]:
        parts = attention.alike(it.lengths.tolist())

        def run() -> None:
            for part, count in parts:
                with sdpa_kernel([SDPBackend.MATH if count == 1 else chosen]):  # cuDNN does not take a single key
                    result = torch.nn.functional.scaled_dot_product_attention(
                        it.q[part].unsqueeze(2), it.k[part, :, :count], it.v[part, :, :count], enable_gqa=True
                    )
                    it.out[part] = result.squeeze(2)

        return run

    first = cache(params, device)
    return _step(
        params,
        device,
        first,
        make,
        facts=facts,
        slack=attention.ROUNDED if chosen is SDPBackend.MATH else 1.0,
        repeatable=chosen is not SDPBackend.CUDNN_ATTENTION,  # on long caches two runs of it differ in the last bits
    )


def usable(it: Cache) -> list[str]:
    """The backends of SDPA that can run this query and cache on a GPU, in torch's own order; unpinned, it takes the first."""
    import torch

    count = int(it.lengths.max())
    given = torch.backends.cuda.SDPAParams(
        it.q.unsqueeze(2), it.k[:, :, :count], it.v[:, :, :count], None, 0.0, False, True
    )
    backends = torch.backends.cuda
    can = {
        "FLASH_ATTENTION": backends.can_use_flash_attention, "EFFICIENT_ATTENTION": backends.can_use_efficient_attention,
        "CUDNN_ATTENTION": backends.can_use_cudnn_attention,
    }  # fmt: skip
    order = [SDPA_NAMES.get(number, "") for number in torch._C._get_sdp_priority_order()]
    return [name for name in order if name == "MATH" or (name in can and can[name](given, False))]


def _build_triton(name: str, params: Params, device: str, first: Cache, table: Any = None) -> Step:
    """The Triton kernel in its fastest way, over a contiguous cache or over pages and their table."""
    from moeprof.workloads.decode import split_kv as split

    scale = params["head_dim"] ** -0.5
    key = [name, *first.q.shape, *first.k.shape, str(first.lengths.tolist()), params["dtype"]]
    way = split.chosen(key, split.DECODE, lambda way: split.decode(way, first, scale, table)[0])

    def make(it: Cache) -> Callable[[], None]:
        return captured(split.decode(way, it, scale, table)[0])

    return _step(params, device, first, make, facts=lambda: split.words(way))


def build_split_kv(params: Params, device: str) -> Step:
    """One Triton kernel over a contiguous cache."""
    return _build_triton("decode", params, device, cache(params, device))


def paged(it: Cache, page: int, seed: int) -> tuple[Any, Any, Any]:
    """The cache as pages k, v [N, HKV, page, D] in random order, and the table [B, W] whose entries past a length point outside."""
    import torch

    counts = [-(-n // page) for n in it.lengths.tolist()]
    width = -(-it.k.shape[2] // page)
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)).to(it.k.device)
    table = torch.full((len(counts), width), 1 << 30, dtype=torch.int32, device=it.k.device)
    pages = [it.k.new_empty(sum(counts), it.k.shape[1], page, it.k.shape[3]) for _ in range(2)]
    first = 0
    for sequence, count in enumerate(counts):
        mine = order[first : first + count]
        table[sequence, :count] = mine.int()
        for pool, whole in zip(pages, (it.k, it.v), strict=True):
            rows = whole[sequence, :, : count * page]
            pool[mine] = rows.unflatten(1, (count, page)).transpose(0, 1)
        first += count
    return pages[0], pages[1], table


def build_paged(params: Params, device: str) -> Step:
    """The same kernel over pages."""
    if params["page"] < 1 or params["page"] & (params["page"] - 1) or params["page"] > attention.GRAIN:
        raise UsageError(f"parameter page={params['page']} is no power of two up to {attention.GRAIN}", "give 16 or 64")
    it = cache(params, device)
    k, v, table = paged(it, params["page"], params["seed"])
    return _build_triton("paged", params, device, replace(it, k=k, v=v), table)


def build_cuda(params: Params, device: str) -> Step:
    """The same idea in CUDA C++: bulk copies by a producer warp, four warps with 16 keys of a tile each."""
    from moeprof.workloads.decode import attention_cuda as native
    from moeprof.workloads.decode import split_kv as split

    it, scale = cache(params, device), params["head_dim"] ** -0.5
    key = ["cuda", *it.q.shape, *it.k.shape, str(it.lengths.tolist())]
    way = split.chosen(
        key, [{"whole": whole} for whole in (False, True)], lambda way: native.prepared(it, scale, way["whole"])
    )
    facts = {"parts": "whole units" if way["whole"] else "equal"}
    return _step(params, device, it, lambda it: captured(native.prepared(it, scale, way["whole"])), facts=lambda: facts)


def reference(params: Params, it: Cache, skip: tuple[int, int] = (0, 0), scale: float | None = None) -> Any:
    """The attention [B, HQ, D] in higher precision, sequence by sequence; ``skip``: leave out these positions, if any."""
    import torch

    wide, group = attention.exact(params), params["q_heads"] // params["kv_heads"]
    out = torch.zeros(it.q.shape, dtype=wide, device=it.q.device)
    for sequence, count in enumerate(it.lengths.tolist()):
        keep = [i for i in (slice(0, min(skip[0], count)), slice(min(skip[1], count), count)) if i.stop > i.start]
        k, v = (torch.cat([whole[sequence, :, i] for i in keep], 1).to(wide) for whole in (it.k, it.v))
        q = it.q[sequence].to(wide).unflatten(0, (-1, group))  # [HKV, group, D]
        weights = torch.softmax(q @ k.transpose(1, 2) * (params["head_dim"] ** -0.5 if scale is None else scale), -1)
        out[sequence] = (weights @ v).flatten(0, 1)
    return out


def prove(params: Params, device: str, step: Step) -> Proof:
    """Every head of every sequence against the reference."""
    return attention.compare(params, device, step, reference(params, cache(params, device)))


def _faulty(wrong: Callable[[Params, Cache], Any], params: Params, device: str) -> Step:
    return _step(params, device, cache(params, device), lambda it: lambda: it.out.copy_(wrong(params, it)))


def _mean(params: Params, it: Cache) -> Any:
    return reference(params, it, scale=0.0)


def _without_scale(params: Params, it: Cache) -> Any:
    return reference(params, it, scale=1.0)


def _first_key(params: Params, it: Cache) -> Any:
    return it.v[:, :, 0].repeat_interleave(params["q_heads"] // params["kv_heads"], 1)


def _dropped_split(params: Params, it: Cache) -> Any:
    longest = int(it.lengths.max())
    return reference(params, it, skip=(longest // 4, longest // 2))


def _last_page(params: Params, it: Cache) -> Any:
    counts = ((it.lengths - 1) // params["page"] * params["page"]).clamp(min=1)
    return reference(params, replace(it, lengths=counts))


FAULTS: dict[str, Build] = {
    "mean-of-v": partial(_faulty, _mean),
    "dropped-split": partial(_faulty, _dropped_split),
    "no-scale": partial(_faulty, _without_scale),
    "last-page-skipped": partial(_faulty, _last_page),
    "first-key-only": partial(_faulty, _first_key),
    "zeros": partial(_faulty, lambda params, it: it.q * 0),
}

LLAMA8B: dict[str, Any] = {
    "batch": 32, "q_heads": 32, "kv_heads": 8, "length": 4096, "lengths": "", "head_dim": 128, "page": 64, "backend": "cudnn",
    "dtype": "bfloat16", "seed": 0,
}  # fmt: skip

WORKLOAD = Workload(
    name="decode_attention",
    summary="one new token against its KV cache: a loop over heads, SDPA, its math path, one Triton pass, the same over pages",
    variants=(
        Variant("naive", "per head: matmul, softmax, matmul", build_naive),
        Variant("sdpa", "scaled_dot_product_attention, backend pinned", partial(_build_sdpa, None)),
        Variant("math", "SDPA's math backend", partial(_build_sdpa, "math")),
        Variant("split_kv", "one Triton kernel, equal parts of all blocks", build_split_kv, needs_cuda, ("triton",)),
        Variant("cuda", "the one pass in CUDA C++, tiles by bulk copies", build_cuda, nvcc.needs_tma),
        Variant("paged", "the same over pages and a block table", build_paged, needs_cuda, ("triton",)),
    ),
    baseline="naive",
    optimized="split_kv",
    presets={
        "default": LLAMA8B,
        "llama8b": LLAMA8B,
        "seed": {**LLAMA8B, "q_heads": 12, "kv_heads": 12, "length": 512, "head_dim": 64},
        "llama70b": {**LLAMA8B, "q_heads": 64, "length": 8192},
        "qwen3": {**LLAMA8B, "batch": 64, "kv_heads": 4, "length": 8192},
        "long": {**LLAMA8B, "batch": 1, "length": 131072},
        "one": {**LLAMA8B, "batch": 1, "length": 8192},
        "ragged": {**LLAMA8B, "lengths": "4641,45118,1730,1696"},
        "gb10": {**LLAMA8B, "batch": 8},
        "tiny": {**LLAMA8B, "batch": 4, "q_heads": 8, "kv_heads": 2, "length": 384, "head_dim": 32, "page": 16, "dtype": "float32"},
    },
    prove=prove,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=FAULTS,
    ceilings=attention.ceilings,
    shows="decoding reads the cache once or loses: launches and copies of it are all that a fused pass removes",
    counted=16,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
