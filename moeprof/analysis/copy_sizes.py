"""Copies by direction, memory and size: small ones reach no bandwidth, whatever the link can do."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import union
from moeprof.analysis.model import CopySize
from moeprof.analysis.overlap import exposures

# upper bounds of the classes of size, in bytes; the last class has none
BOUNDS = (4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20)


def copy_sizes(view: DeviceView) -> tuple[CopySize, ...]:
    """The explicit copies of a device by direction, memory and class of size, over the whole trace."""
    if not len(view.ops):
        return ()
    rows = exposures(view, int(view.starts[0]), int(view.ends.max()))
    if not len(rows):
        return ()
    op = rows["op"].to_numpy(dtype=np.int64)
    size = np.maximum(view.ops["bytes"].to_numpy()[op], 0)
    rows = rows.assign(size=size, size_class=np.searchsorted(BOUNDS, size, side="right"))
    groups = []
    for (direction, memory, number), group in rows.groupby(["direction", "memory", "size_class"], sort=True):
        of_group = group["op"].to_numpy(dtype=np.int64)
        busy = union(view.starts[of_group], view.ends[of_group]).total_ns
        moved = int(group["size"].sum())
        groups.append(
            CopySize(
                view.index, str(direction), str(memory), BOUNDS[number - 1] if number else 0, BOUNDS[number] if number < len(BOUNDS) else None,
                len(of_group), moved, busy, int(group["exposed_ns"].sum()), moved / busy if busy else None,
            )
        )  # fmt: skip
    return tuple(groups)
