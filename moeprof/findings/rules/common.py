"""What every rule needs to make its finding: the threshold, the bound, the words for time, and an example as evidence."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.analysis.model import Finding
from moeprof.findings.what_if import Scene

NUMBERED = re.compile(r", (op_id|seq|sizes)\b.*$")  # what torch.autograd.profiler.emit_nvtx adds to an operator's name
SHARE = 0.05  # of the judged time: a smaller cost is not worth a reader's time


# rule -> the owners of the judged time (fields of Ledger) from which its gain can come: their sum bounds it
OWNERS: dict[str, tuple[str, ...]] = {
    "dropped-records": ("idle_ns",),
    "profiler-overhead": ("idle_ns",),
    "pageable-copy": ("exposed_copy_ns", "idle_ns"),
    "allocator-in-loop": ("idle_ns",),
    "sync-api": ("idle_ns", "exposed_copy_ns"),
    "tiny-copies": ("idle_ns", "exposed_copy_ns"),
    "legacy-default-stream": ("exposed_copy_ns", "compute_ns"),
    "migration-stall": ("exposed_migration_ns", "idle_ns", "compute_ns"),
    "copy-engine-contention": ("exposed_copy_ns", "idle_ns"),
    "same-stream-copy": ("exposed_copy_ns",),
    "late-issue": ("exposed_copy_ns",),
    "serialized-streams": ("exposed_copy_ns", "compute_ns"),
    "link-bound": ("exposed_copy_ns",),
    "exposed-communication": ("exposed_comm_ns",),
    "graph-opportunity": ("idle_ns",),
    "launch-bound": ("idle_ns",),
    "host-bound": ("idle_ns",),
    "low-concurrency": ("compute_ns",),
    "copy-like-kernels": ("compute_ns",),
}


STEPS = ("step", "iteration", "batch", "epoch")  # names of ranges that are steps of a program


def finding(
    id: str, scene: Scene, gain_ns: float, claim: str, remedy: str, share: float = SHARE, **evidence: Any
) -> Finding | None:
    """The finding, where its gain is at least ``share`` of the judged time; ``{ms}`` in the claim is the gain.

    A gain is at most what the owners of the judged time (``OWNERS``) have from which it can come.
    """
    gain = int(gain_ns)
    if id in OWNERS:
        gain = min(gain, sum(getattr(scene.judged.ledger, owner) for owner in OWNERS[id]))
    if gain < share * scene.span or gain <= 0:
        return None
    if scene.passes:
        evidence["gain_ns_per_pass"] = round(gain / scene.passes)
    where = f"device {scene.view.index}, {scene.focus.label}"
    text = claim.replace("{ms}", milliseconds(gain, scene.passes, unit_of(scene.focus.label)))
    gain_share = gain / max(scene.judged.span_ns, 1)
    return Finding(id, text, gain, where, evidence, remedy, scene.view.index, min(gain_share, 1.0), scene.passes)


def outside(
    id: str, scene: Scene, gain_ns: int, claim: str, remedy: str, where: str, **evidence: Any
) -> Finding | None:
    """A finding about time before the judged part: its gain is no share of that part."""
    if gain_ns <= 0:
        return None
    text = claim.replace("{ms}", milliseconds(gain_ns, 0))
    return Finding(id, text, gain_ns, f"device {scene.view.index}, {where}", evidence, remedy, scene.view.index)


def unit_of(label: str) -> str:
    """What the judged part repeats, by its label: "step" of "step x 96"; "pass" where that may be a layer, too."""
    match = re.search(rf"\b({'|'.join(STEPS)}) x \d", label)
    return match[1] if match else "pass"


def plural(unit: str) -> str:
    """ "steps", "passes", "batches"."""
    return f"{unit}es" if unit.endswith(("s", "ch")) else f"{unit}s"


def milliseconds(ns: int, passes: int, unit: str = "pass") -> str:
    """ "1.234 ms per step (12.34 ms in 10 steps)"."""
    return (
        f"{ns / passes / 1e6:.3f} ms per {unit} ({ns / 1e6:.2f} ms in {passes} {plural(unit)})"
        if passes > 1
        else f"{ns / 1e6:.2f} ms"
    )


def after_gap(scene: Scene, mask: np.ndarray) -> dict[str, Any]:
    """The worst place of an idle device: the operation that ended the longest of the gaps before the operations ``mask``, how long the
    device was idle before it, and the stretch of about a pass that has the most idle time of that kind."""
    places = np.flatnonzero(mask)
    if not len(places):
        return {}
    place = int(places[np.argmax(scene.gaps[places])])
    length = scene.span // scene.passes if scene.passes > 1 else 0
    ends, gaps = scene.starts[places], scene.gaps[places]
    total = np.concatenate([[0], np.cumsum(gaps)])
    last = np.searchsorted(ends, ends - gaps + max(length, int(gaps.max())), side="right")
    worst = int(np.argmax(total[last] - total[:-1]))
    stretch = {
        "from_ns": int(ends[worst] - gaps[worst]),
        "to_ns": int(ends[last[worst] - 1]),
        "idle_ns": int(total[last[worst]] - total[worst]),
    }
    return example(scene, scene.index[[place]]) | {"idle_before_ns": int(scene.gaps[place]), "worst": stretch}


def example(scene: Scene, rows: Times) -> dict[str, Any]:
    """The longest of the operations ``rows`` (of the view): its call, thread, stream, start and length."""
    if not len(rows):
        return {}
    view = scene.view
    row = int(rows[np.argmax(view.ends[rows] - view.starts[rows])])
    op = view.ops.iloc[row]
    evidence: dict[str, Any] = {
        "operation": str(op["name"]),
        "stream": int(op["stream"]),
        "start_ns": int(op["start_ns"]),
        "duration_ns": int(op["end_ns"] - op["start_ns"]),
    }
    call = int(op["call"])
    if call < 0:
        return evidence
    evidence |= {"call": str(view.calls["name"].iloc[call]), "thread": int(view.calls["tid"].iloc[call])}
    name = _range_around(scene, call)
    return evidence | ({"range": name} if name else {})


def _range_around(scene: Scene, call: int) -> str:
    """The innermost range of the call's thread around it; "" where there is none."""
    made, ranges = scene.view.calls.iloc[call], scene.trace.ranges
    around = ranges[
        (ranges["start_ns"] <= made["start_ns"]) & (ranges["end_ns"] >= made["end_ns"])
        & (ranges["pid"] == made["pid"]) & (ranges["tid"] == made["tid"])
    ]  # fmt: skip
    return (
        NUMBERED.sub("", str(around["name"].iloc[int(around["start_ns"].to_numpy().argmax())])) if len(around) else ""
    )


def call_names(scene: Scene, chosen: np.ndarray) -> dict[str, int]:
    """The chosen calls (a mask over the trace's calls) on the launching threads, by name, the most frequent first."""
    rows = np.concatenate([*scene.host.calls.values(), np.empty(0, np.int64)]).astype(np.int64)
    names = (
        scene.view.calls["name"].iloc[rows[chosen[rows] & ~scene.view.host.repeated[rows]]].astype(str).value_counts()
    )
    return {str(name): int(count) for name, count in names.head(4).items()}
