"""The family of a kernel, by its name: what a colour and a row of the kernels by family stand for."""

from __future__ import annotations

import re

from moeprof.units import short_kernel

LONG_NAME = 40  # characters from which the template arguments of a name are left out before it is matched
HEAD = 400  # characters of a long name that are matched beside its short form
COMPUTE, COMMUNICATION, GRAPH = "compute", "communication", "graph"

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
        "elementwise",
        re.compile(
            r"elementwise|vectorized|catarray|fill|reduce|norm|softmax|gelu|silu|index|scatter|gather|embedding|cast|copy_|topk|sort|scan",
            re.IGNORECASE,
        ),
    ),
)


def family_of(name: str) -> str:
    """The family of a compute kernel: attention, gemm, elementwise (reductions too), or compute for any other."""
    plain = name if len(name) < LONG_NAME else f"{short_kernel(name, 200)} {name[:HEAD]}"
    return next((family for family, pattern in PATTERNS if pattern.search(plain)), COMPUTE)
