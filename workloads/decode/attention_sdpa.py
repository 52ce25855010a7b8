"""Decode attention by torch's scaled_dot_product_attention with a pinned backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.decode import sequences
from moeprof.workloads.decode.attention import Cache, cache, step

SDPA_NAMES = {0: "MATH", 1: "FLASH_ATTENTION", 2: "EFFICIENT_ATTENTION", 3: "CUDNN_ATTENTION"}  # torch's numbers
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}


def build_sdpa(backend: str | None, params: Params, device: str) -> Step:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = getattr(SDPBackend, BACKENDS[backend or params["backend"]])
    if device == "cpu" and backend is None:
        chosen = SDPBackend.MATH  # a CPU has no choice of grouped-query kernels in every version

    def facts() -> dict[str, Any]:
        return {"pinned": chosen.name, "backends that can": ", ".join(usable(first)) if device == "cuda" else "-"}

    def make(kv: Cache) -> Callable[[], None]:
        parts = sequences.equal_lengths(kv.lengths.tolist())

        def run() -> None:
            for part, count in parts:
                with sdpa_kernel([SDPBackend.MATH if count == 1 else chosen]):  # cuDNN does not take a single key
                    result = torch.nn.functional.scaled_dot_product_attention(
                        kv.q[part].unsqueeze(2), kv.k[part, :, :count], kv.v[part, :, :count], enable_gqa=True
                    )
                    kv.out[part] = result.squeeze(2)

        return run

    first = cache(params, device)
    return step(
        params,
        device,
        first,
        make,
        facts=facts,
        slack=sequences.ROUNDED if chosen is SDPBackend.MATH else 1.0,
        repeatable=chosen is not SDPBackend.CUDNN_ATTENTION,  # on long caches two runs of it differ in the last bits
    )


def usable(kv: Cache) -> list[str]:
    """The backends of SDPA that can run this query and cache on a GPU, in the order of torch, which takes the first if unpinned."""
    import torch

    count = int(kv.lengths.max())
    sdpa_params = torch.backends.cuda.SDPAParams(
        kv.q.unsqueeze(2), kv.k[:, :, :count], kv.v[:, :, :count], None, 0.0, False, True
    )
    backends = torch.backends.cuda
    can = {
        "FLASH_ATTENTION": backends.can_use_flash_attention, "EFFICIENT_ATTENTION": backends.can_use_efficient_attention,
        "CUDNN_ATTENTION": backends.can_use_cudnn_attention,
    }  # fmt: skip
    order = [SDPA_NAMES.get(number, "") for number in torch._C._get_sdp_priority_order()]
    return [name for name in order if name == "MATH" or (name in can and can[name](sdpa_params, False))]
