"""What each event of a timeline is: its class, which decides its colour. Work is cool, idle time is warm (timeline.css)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.device import COMM, COPY, MEMSET, MIGRATION, DeviceView, one_of
from moeprof.analysis.kernel_families import family_of

# Class -> what a reader sees. The colours are CSS variables of these names (timeline.css): work is cool, idle is warm.
WORK = {
    "attention": "attention", "gemm": "GEMM", "copy-like": "kernels that move memory", "elementwise": "elementwise and reductions", "compute": "other compute",
    "graph": "CUDA graph, traced as a whole", "comm": "communication", "h2d": "copy H2D", "d2h": "copy D2H",
    "d2d": "copy D2D", "p2p": "copy P2P", "copy": "copy", "migration": "migration", "memset": "memset",
}  # fmt: skip
IDLE = {
    "host": "idle: host code is late", "sync": "idle: host waits", "launch": "idle: inside the launch call",
    "dependency": "idle: launched, not begun", "edge": "idle: before the first or after the last operation",
}  # fmt: skip
CALLS = {
    "launch-call": "launch", "graph-call": "graph launch", "copy-call": "copy or memset call", "wait-call": "call that waits for the GPU",
    "alloc-call": "allocation", "other-call": "other call",
}  # fmt: skip
RANGES = {"range": "range"}
COLLECTIVES = {"coll-wait": "collective waits for the last rank", "coll-move": "collective moves data"}
CLASSES = {**WORK, **IDLE, **CALLS, **RANGES, **COLLECTIVES}
NUMBER = {name: number for number, name in enumerate(CLASSES)}
CALL_CLASSES = {
    "launch": "launch-call", "graph_launch": "graph-call", "copy": "copy-call", "copy_sync": "wait-call", "sync": "wait-call",
    "memset": "copy-call", "alloc": "alloc-call",
}  # fmt: skip
DIRECTIONS = {"H2D": "h2d", "D2H": "d2h", "D2D": "d2d", "P2P": "p2p"}
ROLES = (
    "compute",
    "communication",
    "copies H2D",
    "copies D2H",
    "copies D2D",
    "copies P2P",
    "copies",
    "migrations",
    "memsets",
)
ROLE_OF = {
    "attention": 0, "gemm": 0, "copy-like": 0, "elementwise": 0, "compute": 0, "graph": 0, "comm": 1, "h2d": 2, "d2h": 3, "d2d": 4, "p2p": 5,
    "copy": 6, "migration": 7, "memset": 8,
}  # fmt: skip


def op_classes(view: DeviceView) -> np.ndarray:
    """The number of each operation's class."""
    kind, names = view.ops["kind"], view.ops["name"].cat
    family = np.array([NUMBER[family_of(str(name))] for name in names.categories] + [NUMBER["compute"]])
    classes = family[names.codes.to_numpy()]
    for label, kinds in (("comm", COMM), ("graph", ("graph",)), ("migration", MIGRATION), ("memset", MEMSET)):
        classes = np.where(one_of(kind, kinds), NUMBER[label], classes)
    ways = view.ops["direction"].cat
    way = np.array([NUMBER[DIRECTIONS.get(str(d), "copy")] for d in ways.categories] + [NUMBER["copy"]])
    return np.where(one_of(kind, COPY), way[ways.codes.to_numpy()], classes)


def call_classes(calls: pd.DataFrame) -> np.ndarray:
    kinds = calls["kind"].cat
    numbers = [NUMBER[CALL_CLASSES.get(str(kind), "other-call")] for kind in kinds.categories]
    return np.array([*numbers, NUMBER["other-call"]], dtype=np.int64)[kinds.codes.to_numpy()]
