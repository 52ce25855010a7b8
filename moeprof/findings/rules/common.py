"""What every rule needs to make its finding: the threshold, the bound, the words for time, and an example as evidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.analysis.model import Finding
from moeprof.findings.what_if import Scene

SHARE = 0.05  # of the judged time: a smaller cost is not worth a reader's time


def finding(
    id: str, scene: Scene, gain_ns: float, claim: str, remedy: str, share: float = SHARE, **evidence: Any
) -> Finding | None:
    """The finding, where its gain is at least ``share`` of the judged time; ``{ms}`` in the claim is the gain."""
    gain = int(gain_ns)
    if gain < share * scene.span or gain <= 0:
        return None
    passes = len(scene.focus.spans)
    if passes:
        evidence["gain_ns_per_pass"] = round(gain / passes)
    where = f"device {scene.view.index}, {scene.focus.label}"
    return Finding(id, claim.replace("{ms}", milliseconds(gain, passes)), gain, where, evidence, remedy)


def milliseconds(ns: int, passes: int) -> str:
    """ "12.34 ms (1.234 ms a pass)"."""
    return f"{ns / 1e6:.2f} ms" + (f" ({ns / passes / 1e6:.3f} ms a pass)" if passes > 1 else "")


def example(scene: Scene, rows: Times) -> dict[str, Any]:
    """The longest of the operations ``rows`` (of the view): its call, thread, stream, start and length."""
    if not len(rows):
        return {}
    view = scene.view
    row = int(rows[np.argmax(view.ends[rows] - view.starts[rows])])
    op = view.ops.iloc[row]
    evidence = {
        "operation": str(op["name"]),
        "stream": int(op["stream"]),
        "start_ns": int(op["start_ns"]),
        "duration_ns": int(op["end_ns"] - op["start_ns"]),
    }
    call = int(op["call"])
    return evidence | (
        {"call": str(view.calls["name"].iloc[call]), "thread": int(view.calls["tid"].iloc[call])} if call >= 0 else {}
    )


def call_names(scene: Scene, chosen: np.ndarray) -> dict[str, int]:
    """The chosen calls (a mask over the trace's calls) on the launching threads, by name, the most frequent first."""
    rows = np.concatenate([*scene.host.calls.values(), np.empty(0, np.int64)]).astype(np.int64)
    names = scene.view.calls["name"].iloc[rows[chosen[rows]]].astype(str).value_counts()
    return {str(name): int(count) for name, count in names.head(4).items()}
