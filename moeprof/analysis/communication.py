"""What moves data between GPUs, by class (NCCL, NVSHMEM, DeepEP, ..., peer copies): hidden under compute, and exposed."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times, intersection_ns, union
from moeprof.analysis.model import Communication


def communication(view: DeviceView, start: int, end: int) -> tuple[Communication, ...]:
    """The classes with operations in the window, clipped to it, the most exposed first.

    Hidden is |N_c n K|. Classes may run side by side, so that their times do not add up to the ledger's.
    """
    inside = view.overlapping(start, end)
    inside = inside[view.communication[inside] != ""]
    return tuple(
        sorted(
            (_one(view, start, end, name, inside) for name in np.unique(view.communication[inside])),
            key=lambda c: (-c.exposed_ns, c.name),
        )
    )


def _one(view: DeviceView, start: int, end: int, name: str, inside: Times) -> Communication:
    rows = inside[view.communication[inside] == name]
    merged = union(np.maximum(view.starts[rows], start), np.minimum(view.ends[rows], end))
    hidden = intersection_ns(merged, view.owners[0])
    size = view.ops["bytes"].to_numpy()[rows]
    moved = int(size[size > 0].sum()) if (size > 0).any() else None
    return Communication(str(name), len(rows), merged.total_ns, hidden, merged.total_ns - hidden, moved)
