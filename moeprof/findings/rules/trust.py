"""Rules about the trace itself: what the profiler lost and what it cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.intervals import EARLY
from moeprof.analysis.model import Finding
from moeprof.findings.rules.common import example, finding
from moeprof.findings.what_if import Scene

LEAST_LOST = 3  # launch calls
LOST_SHARE = 0.02  # of the launch calls


def dropped_records(scene: Scene) -> Finding | None:
    """Launch calls whose kernels are not in the trace: what looks idle may be work that was not recorded."""
    lost, launches = _lost(scene)
    count = int(lost.sum())
    if count < LEAST_LOST or count < LOST_SHARE * launches:
        return None
    names = scene.view.calls["name"][lost].astype(str).value_counts()
    return finding(
        "dropped-records", scene, scene.idle_ns,
        f"{count} of {launches} launches have no kernel in the trace: records were dropped, and {{ms}} of idle time may be work",
        "trace a shorter part, with larger buffers (nsys --cuda-flush-interval, less tracing at once)",
        lost=count, launches=launches, calls={str(n): int(c) for n, c in names.head(4).items()},
    )  # fmt: skip


def _lost(scene: Scene) -> tuple[np.ndarray, int]:
    """Launch calls without work (a mask over the calls) among those that must have run, and how many those are.

    A stream is first in, first out: what was launched before the earliest of the streams' last operations has run.
    Launches inside a stream capture never run.
    """
    view, calls = scene.view, scene.view.calls
    none = np.zeros(len(calls), dtype=bool)
    if not len(calls):
        return none, 0
    used = scene.trace.ops["call"].to_numpy()
    has_work = none.copy()
    has_work[used[used >= 0]] = True
    has_work = _of_call(calls, has_work)
    last = np.full(int(view.queue.max()) + 1, EARLY)
    np.maximum.at(last, view.queue, view.call_starts)
    busy = np.bincount(view.queue) >= 0.05 * len(view.queue)
    horizon = int(last[busy & (last > EARLY)].min()) if (busy & (last > EARLY)).any() else EARLY
    starts = calls["start_ns"].to_numpy()
    of_process = calls["pid"].isin(view.ops["pid"].unique()).to_numpy()
    must = (calls["kind"] == "launch").to_numpy() & of_process & (starts < horizon) & (starts >= scene.host.start)
    must &= (
        ~_capturing(scene) & ~view.host.repeated & (calls["correlation"] > 0).to_numpy()
    )  # 0: a call inside another one
    return must & ~has_work, int(must.sum())


def _of_call(calls: pd.DataFrame, has_work: np.ndarray) -> np.ndarray:
    """The mask for every record of a call: an older nsys records a call twice, and joins the work to one of the two."""
    return has_work | (
        pd.Series(has_work).groupby([calls["pid"].to_numpy(), calls["tid"].to_numpy(), calls["correlation"].to_numpy()]).transform("max").to_numpy()
        & (calls["correlation"] > 0).to_numpy()
    )  # fmt: skip


def _capturing(scene: Scene) -> np.ndarray:
    """Calls that lie between cudaStreamBeginCapture and cudaStreamEndCapture of their process."""
    capturing = np.zeros(len(scene.view.calls), dtype=bool)
    begins = np.flatnonzero(scene.view.host.named("StreamBeginCapture"))
    ends = np.flatnonzero(scene.view.host.named("StreamEndCapture"))
    for begin in begins:
        after = ends[ends > begin]
        capturing[begin : after[0] if len(after) else len(capturing)] = True
    return capturing


def profiler_overhead(scene: Scene) -> Finding | None:
    """The GPU waits while the profiler works on a launching thread."""
    cost = int(scene.overhead.covered(scene.before, scene.starts).sum())
    names = scene.trace.overheads["name"].astype(str).value_counts()
    return finding(
        "profiler-overhead", scene, min(cost, scene.idle_ns),
        "the GPU is idle {ms} while the profiler is at work: this time is not the program's",
        "trace less (no backtraces, no sampling), trace a shorter part, or flush outside it",
        overheads={str(n): int(c) for n, c in names.head(4).items()}, example=example(scene, scene.index[scene.late]),
    )  # fmt: skip
