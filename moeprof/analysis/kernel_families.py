"""The family of a kernel, by its name: what a colour and a row of the kernels by family stand for."""

from __future__ import annotations

import re

from moeprof.units import short_kernel

LONG_NAME = 40  # characters from which the template arguments of a name are left out before it is matched
HEAD = 400  # characters of a long name that are matched beside its short form
COMPUTE, COMMUNICATION, GRAPH, COPY_LIKE = "compute", "communication", "graph", "copy-like"

# What TorchInductor's fused kernels are named after, where all of it moves or addresses memory and computes nothing.
MOVES = (
    "_to_copy|_unsafe_index|_unsafe_view|as_strided|cat|clamp|clone|constant_pad_nd|copy|embedding|empty|expand|flip|gather|"
    "index|index_put|index_select|permute|repeat|reshape|roll|scatter|select|select_scatter|slice|slice_scatter|split|squeeze|stack|"
    "t|transpose|unsqueeze|view|zeros"
)

# Compute kernels, the first pattern that matches; any other compute kernel is COMPUTE.
PATTERNS = (
    ("attention", re.compile(r"flash|fmha|attention|attn|\bmla|_mla|paged|softmax_warp", re.IGNORECASE)),
    (
        "gemm",
        re.compile(
            r"gemm|gemv|nvjet|xmma|matmul|cutlass_\d|wgmma|mma_|splitk|_bmm|grouped_mm|dot_kernel", re.IGNORECASE
        ),
    ),
    (
        COPY_LIKE,
        re.compile(
            r"^(?!triton_).*?(_copy_kernel|gather_kernel|index_elementwise_kernel|indexSelect|index_copy|CatArray|transpose|permute_kernel|"
            r"nchwToNhwc|nhwcToNchw|reshape_and_cache|copyKernel|expandInputRows|"
            r"scatter_gather_elementwise_kernel(?!.*(Add|Multiply|Mean|Maximum|Minimum)))|"
            rf"^triton_\w+?_fused_(({MOVES})_)+\d+$",
            re.IGNORECASE,
        ),
    ),
    (
        "elementwise",
        re.compile(
            r"elementwise|vectorized|catarray|fill|reduce|norm|softmax|gelu|silu|index|scatter|gather|embedding|cast|copy_|topk|sort|scan",
            re.IGNORECASE,
        ),
    ),
)


def family_of(name: str) -> str:
    """The family of a compute kernel: attention, gemm, copy-like (it only moves memory), elementwise (reductions too), or compute."""
    plain = name if len(name) < LONG_NAME else f"{short_kernel(name, 200)} {name[:HEAD]}"
    return next((family for family, pattern in PATTERNS if pattern.search(plain)), COMPUTE)
