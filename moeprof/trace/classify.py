"""What a vendor's name or number means: kinds of kernels, calls, copies and memory. One place for each list."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

# Kernels that move data between GPUs. NCCL and RCCL by prefix; the expert-parallel and symmetric-memory families by the
# names their sources give (DeepEP `deep_ep::`, NVSHMEM `nvshmem`, pplx `all_to_all`, custom all-reduce of vLLM and
# TensorRT-LLM `cross_device_reduce` / `allreduce`, PyTorch symmetric memory `multimem_` / `_symm_mem`).
COMM_KERNEL = re.compile(
    r"^(nccl|rccl|ncclDevKernel|ncclKernel)|deep_ep::|nvshmem|pplx|all_?to_?all|cross_device_reduce"
    r"|(^|[^a-z])all_?reduce|(^|[^a-z])all_?gather|reduce_?scatter|multimem_|symm_?mem",
    re.IGNORECASE,
)

# CUDA's numbering of copies (CUpti_ActivityMemcpyKind); 11 to 13 are unified-memory migrations, as nsys exports them.
DIRECTIONS = {1: "H2D", 2: "D2H", 3: "H2D", 4: "D2H", 5: "D2D", 6: "D2D", 7: "D2D", 8: "D2D", 9: "H2H", 10: "P2P"}
MIGRATIONS = {11: "H2D", 12: "D2H", 13: "D2D"}
MEMORY = {0: "pageable", 1: "pinned", 2: "device", 3: "array", 4: "managed", 5: "device", 6: "managed"}

# Host calls, the first pattern that matches. A plain cudaMemcpy both copies and blocks the host: "copy_sync".
CALL_KINDS = (
    ("graph_launch", re.compile(r"GraphLaunch")),
    (
        "launch",
        re.compile(r"Launch(Cooperative)?Kernel|LaunchKernel|LaunchCooperative|cuLaunchGrid|cuLaunch$|cudaLaunch$"),
    ),
    ("copy", re.compile(r"Memcpy\w*Async|MemcpyBatch|MemPrefetch")),
    ("copy_sync", re.compile(r"Memcpy")),
    ("memset", re.compile(r"Memset")),
    ("sync", re.compile(r"Synchronize$")),
    ("event", re.compile(r"Event")),
    ("alloc", re.compile(r"Malloc|MemAlloc|MemFree|cudaFree|HostAlloc|HostRegister|MemCreate|MemMap")),
)
BLOCKING = ("sync", "copy_sync")
_VERSION = re.compile(r"(_v\d+)?(_ptsz|_ptds)?$")


def relabel(texts: pd.Categorical, label: Callable[[str], str]) -> pd.Categorical:
    """``label`` of each text, asked once for each different one."""
    labels = [label(str(text)) for text in texts.categories]
    names = sorted(set(labels))
    codes = np.array([names.index(text) for text in labels], dtype=np.int64)
    return pd.Categorical.from_codes(codes[texts.codes] if len(texts) else [], categories=pd.Index(names, dtype=object))


def kernel_kind(name: str) -> str:
    """ "comm" for kernels that move data between GPUs, "kernel" for the others."""
    return "comm" if COMM_KERNEL.search(name) else "kernel"


def call_name(name: str) -> str:
    """``cudaLaunchKernel_v7000`` -> ``cudaLaunchKernel``, as nsys prints it."""
    return _VERSION.sub("", name)


def call_kind(name: str) -> str:
    """The kind of a host call by its name."""
    return next((kind for kind, pattern in CALL_KINDS if pattern.search(name)), "other")
