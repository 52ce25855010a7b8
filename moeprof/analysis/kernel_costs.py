"""What the kernels of each name cost beyond their own length: idle time before them, and time that nothing hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moeprof.analysis.device import COMPUTE, DeviceView, one_of
from moeprof.analysis.intervals import EMPTY, Times, Union, intersection_ns, minus, newly_covered, union
from moeprof.analysis.kernel_families import COMMUNICATION, GRAPH, PATTERNS, family_of
from moeprof.analysis.kernel_families import COMPUTE as OTHER
from moeprof.analysis.ledger import gaps
from moeprof.analysis.model import Family, Kernel

FAMILY_NUMBER = {name: number for number, name in enumerate((OTHER, *(name for name, _ in PATTERNS), GRAPH))}
HIDING = ("kernel", "comm", "graph")  # kinds of operations that hide a kernel that runs beside them


def costed(view: DeviceView, kernels: list[Kernel]) -> list[Kernel]:
    """``kernels`` of the view's device with their family, ``exposed_ns`` and ``idle_before_ns``."""
    names = view.ops["name"].cat
    codes = names.codes.to_numpy().astype(np.int64)
    exposed = _exposed(view, codes, len(names.categories))
    before = _idle_before(view, codes, len(names.categories))
    place = {str(name): code for code, name in enumerate(names.categories)}
    communicating = set(codes[one_of(view.ops["kind"], ("comm",))])
    rows = []
    for kernel in kernels:
        code = place[kernel.name]
        family = COMMUNICATION if code in communicating else family_of(kernel.name)
        rows.append(replace(kernel, family=family, exposed_ns=int(exposed[code]), idle_before_ns=int(before[code])))
    return rows


def owners(view: DeviceView) -> dict[str, Union]:
    """The compute and exposed communication of a device by family, "graph" for CUDA graphs that were traced whole.

    A nanosecond in which several compute kernels run belongs to the one that began first. Compute hides communication.
    """
    compute = np.flatnonzero(one_of(view.ops["kind"], COMPUTE))
    names = view.ops["name"].cat
    of_name = np.array([*(FAMILY_NUMBER[family_of(str(name))] for name in names.categories), 0])
    family = np.where(one_of(view.ops["kind"], ("graph",)), FAMILY_NUMBER[GRAPH], of_name[names.codes.to_numpy()])[
        compute
    ]
    left, right = newly_covered(view.starts[compute], view.ends[compute])
    owned = {
        name: union(left[family == n], right[family == n]) for name, n in FAMILY_NUMBER.items() if (family == n).any()
    }
    return owned | ({COMMUNICATION: minus(view.owners[1], view.owners[0])} if len(view.owners[1].starts) else {})


def families(
    kernels: tuple[Kernel, ...], owned: Mapping[int, Mapping[str, Union]], judged: Mapping[int, Union]
) -> tuple[Family, ...]:
    """Costed kernels by device and family, the most time first.

    Args:
        owned: ``owners`` of each device.
        judged: the judged part of each device.
    """
    groups: dict[tuple[int, str], list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel.device, kernel.family or ""), []).append(kernel)
    rows = [
        Family(
            family, device, len(of_family), sum(k.count for k in of_family), sum(k.total_ns for k in of_family),
            sum(k.exposed_ns or 0 for k in of_family), sum(k.idle_before_ns or 0 for k in of_family),
            owned[device].get(family, EMPTY).total_ns, intersection_ns(owned[device].get(family, EMPTY), judged[device]),
        )
        for (device, family), of_family in groups.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (row.device, -row.total_ns, row.name)))


def _exposed(view: DeviceView, codes: Times, count: int) -> Times:
    """For each name the time in which its kernels run and no kernel of another name and no CUDA graph does."""
    hiding = one_of(view.ops["kind"], HIDING)
    starts, ends, of_name = view.starts[hiding], view.ends[hiding], codes[hiding]
    if not len(starts):
        return np.zeros(count, dtype=np.int64)
    zero, stride = int(starts.min()), int(ends.max()) - int(starts.min()) + 1
    merged = union(starts - zero + of_name * stride, ends - zero + of_name * stride)  # one row of time for each name
    of_piece = merged.starts // stride
    times = np.concatenate([merged.starts % stride, merged.ends - of_piece * stride])
    step = np.repeat([1, -1], len(of_piece))
    order = np.argsort(times, kind="stable")
    running, which = np.cumsum(step[order])[:-1], np.cumsum((step * np.tile(of_piece, 2))[order])[:-1]
    alone = running == 1
    exposed = np.zeros(count, dtype=np.int64)
    np.add.at(exposed, which[alone], np.diff(times[order])[alone])
    return exposed


def _idle_before(view: DeviceView, codes: Times, count: int) -> Times:
    """For each name the idle time of the device that its kernels ended."""
    before = np.zeros(count, dtype=np.int64)
    if len(view.ops):
        idle_gaps = gaps(view, int(view.starts[0]), int(view.ends.max()))
        ended_by_kernel = view.is_kernel[idle_gaps.ender]
        length = idle_gaps.ends - idle_gaps.starts
        np.add.at(before, codes[idle_gaps.ender[ended_by_kernel]], length[ended_by_kernel])
    return before
