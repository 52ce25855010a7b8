"""What a vendor's name or number means: kinds of kernels, calls, copies and memory. One place for each list."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from moeprof.errors import UsageError

# Kernels that move data between GPUs: (class, pattern), the first that matches. The names are those that the libraries'
# sources give; a user's own table (``communication``) is asked before this one. Copies between GPUs are PEER_COPY.
Classes = tuple[tuple[str, "re.Pattern[str]"], ...]
COMMUNICATION: Classes = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("DeepEP", r"deep_ep"),
        ("NVSHMEM", r"nvshmem"),
        ("NCCL", r"^(nccl|rccl|msccl)|mscclpp"),
        ("symmetric memory", r"multimem_|symm_?mem|lamport"),
        ("custom all-reduce", r"cross_device_reduce|(one|two)_?shot|(^|[^a-z])all_?reduce|vllm::.*allreduce"),
        ("all-to-all", r"pplx|all_?to_?all|(^|[^a-z])a2a([^a-z]|$)"),
        ("other collective", r"(^|[^a-z])all_?gather|reduce_?scatter"),
    )
)
PEER_COPY = "peer copy"

# CUDA's numbering of copies (CUpti_ActivityMemcpyKind); 11 to 13 are unified-memory migrations, as nsys exports them.
DIRECTIONS = {1: "H2D", 2: "D2H", 3: "H2D", 4: "D2H", 5: "D2D", 6: "D2D", 7: "D2D", 8: "D2D", 9: "H2H", 10: "P2P"}
MIGRATIONS = {11: "H2D", 12: "D2H", 13: "D2D"}
ON_DEVICE = (2, 3, 4, 5, 6)  # kinds of MEMORY that take memory of a GPU
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
_SHORT_VERSION = re.compile(r"_v\d{4}$")  # what nsys takes off: cudaLaunchKernel_v7000, but not cudaGraphLaunch_v10000


def relabel(texts: pd.Categorical, label: Callable[[str], str]) -> pd.Categorical:
    """``label`` of each text, asked once for each different one."""
    labels = [label(str(text)) for text in texts.categories]
    names = sorted(set(labels))
    codes = np.array([names.index(text) for text in labels], dtype=np.int64)
    return pd.Categorical.from_codes(codes[texts.codes] if len(texts) else [], categories=pd.Index(names, dtype=object))


def communication_class(name: str, classes: Classes = COMMUNICATION) -> str | None:
    """The class of a kernel that moves data between GPUs; None for any other."""
    return next((label for label, pattern in classes if pattern.search(name)), None)


def kernel_kind(name: str, classes: Classes = COMMUNICATION) -> str:
    """ "comm" for kernels that move data between GPUs, "kernel" for the others."""
    return "comm" if communication_class(name, classes) else "kernel"


def communication(path: Path) -> Classes:
    """A user's classes before the built-in ones: a TOML file with a table ``[communication]`` of name = "regex".

    Raises:
        UsageError: there is no such file, it is no TOML, or a pattern is no regular expression.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["communication"]
        classes = tuple((str(name), re.compile(pattern, re.IGNORECASE)) for name, pattern in table.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, re.error) as error:
        raise UsageError(
            f"{path}: {error or 'cannot be read'}", 'give [communication] with lines: "name" = "regex"'
        ) from error
    return classes + COMMUNICATION


def call_name(name: str) -> str:
    """``cudaLaunchKernel_v7000`` -> ``cudaLaunchKernel``, as nsys prints it; ``cudaGraphLaunch_v10000`` stays, as there."""
    return _SHORT_VERSION.sub("", name)


def call_kind(name: str) -> str:
    """The kind of a host call by its name."""
    plain = _VERSION.sub("", name)
    return next((kind for kind, pattern in CALL_KINDS if pattern.search(plain)), "other")
