"""A rule about communication: time in which a device only communicates."""

from __future__ import annotations

from typing import Any

import numpy as np

from moeprof.analysis.intervals import EMPTY, Union, intersection, minus, union
from moeprof.analysis.model import Finding
from moeprof.findings.rules.common import example, finding
from moeprof.findings.what_if import Scene

LEAST_OF_STREAM = 0.05  # of all compute time: a stream with less computes nothing worth naming
MOSTLY = 0.5  # of the exposed time: from here on its cause is that another device arrives late


def exposed_communication(scene: Scene) -> Finding | None:
    """Communication kernels run while nothing computes, and there is compute that could run beside them."""
    view = scene.view
    rows = scene.index[(view.ops["kind"] == "comm").to_numpy()[scene.index]]
    if not len(rows):
        return None
    pieces = scene.focus.pieces
    exposed = intersection(minus(union(view.starts[rows], view.ends[rows]), view.owners[0]), pieces)
    alone = scene.owned(minus(view.owners[0], view.owners[1]))  # compute that could run beside
    waits, other = _waits(scene, rows)
    waited = intersection(waits, exposed).total_ns
    names = ", ".join(dict.fromkeys(str(name) for name in view.communication[rows]))
    shares_stream = _in_compute_streams(scene, rows)
    evidence: dict[str, Any] = {
        "operations": len(rows), "exposed_ns": exposed.total_ns, "waits_for_other_devices_ns": waited, "waits_for_device": other,
        "compute_alone_ns": alone, "in_stream_of_kernels": shares_stream, "example": example(scene, rows),
    }  # fmt: skip
    if waited > MOSTLY * exposed.total_ns:
        return finding(
            "exposed-communication", scene, waited,
            f"{len(rows)} operations of {names} run with no kernel beside them, mostly because GPU {other} arrives late: up to {{ms}}",
            f"see what delays GPU {other}: give the GPUs equal work, or start the exchange later here", **evidence,
        )  # fmt: skip
    place = "in the stream of the kernels" if shares_stream > MOSTLY else "in a stream of their own"
    return finding(
        "exposed-communication", scene, min(exposed.total_ns - waited, alone),
        f"{len(rows)} operations of {names} {place} run with no kernel beside them: up to {{ms}} could hide under compute",
        "run independent compute beside them: split the batch in two and overlap one half's exchange with the other half's compute, "
        "start it earlier in a stream of its own, or use a kernel that does both",
        **evidence,
    )  # fmt: skip


def _in_compute_streams(scene: Scene, rows: np.ndarray) -> float:
    """The share of the operations ``rows`` in streams that compute: those with a part of the compute time worth naming."""
    view = scene.view
    lengths = np.where((view.ops["kind"] == "kernel").to_numpy(), view.ends - view.starts, 0)
    spent = np.bincount(view.queue, weights=lengths)
    return float((spent[view.queue[rows]] >= LEAST_OF_STREAM * spent.sum()).mean()) if spent.sum() else 0.0


def _waits(scene: Scene, rows: np.ndarray) -> tuple[Union, int | None]:
    """When operations of this device ran before another device of the trace had begun the same one, and the device most waited for.

    The same one is an operation of the same name that runs at the same time. A trace of one device shows no such wait.
    """
    ops, view = scene.trace.ops, scene.view
    names = view.ops["name"].astype(str).to_numpy()[rows]
    starts, ends = view.starts[rows], view.ends[rows]
    arrived = starts.copy()
    waited: dict[int, int] = {}
    others = ops[(ops["kind"] == "comm") & (ops["device"] != view.index)]
    for (device, name), group in others.groupby(["device", others["name"].astype(str)], observed=True):
        mine = np.flatnonzero(names == name)
        order = np.argsort(group["end_ns"].to_numpy(), kind="stable")
        begun, done = group["start_ns"].to_numpy()[order], group["end_ns"].to_numpy()[order]
        place = np.searchsorted(done, starts[mine], side="right")
        meets = place < len(done)
        meets[meets] &= begun[place[meets]] < ends[mine[meets]]
        late = np.where(meets, begun[np.minimum(place, len(done) - 1)], starts[mine])
        waited[int(device)] = waited.get(int(device), 0) + int(np.maximum(late - starts[mine], 0).sum())
        arrived[mine] = np.maximum(arrived[mine], late)
    if not any(waited.values()):
        return EMPTY, None
    return union(starts, np.minimum(arrived, ends)), max(waited, key=lambda device: waited[device])
