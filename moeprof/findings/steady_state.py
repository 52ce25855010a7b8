"""Where a trace repeats: the part that findings judge, without the set-up before it and the clean-up after it.

A structure of repetition counts only where it covers enough of the trace. Otherwise the whole trace is judged, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EMPTY, Union, union
from moeprof.analysis.projection import projected
from moeprof.analysis.steps import StepSpans, find
from moeprof.trace import Trace

LEAST_PASSES = 3  # repetitions from which a thing counts as a loop
MAJORITY = 0.5  # of the launches between its first and last instance that a range must hold to be the loop
STRANGERS = 0.05  # of the operations of a loop that need not recur
COVERS = 0.5  # of the operations, and of the compute time, that recurring operations must hold to stand for the trace
SLOW_FIRST = 1.5  # times the median pass
LEAST_FIRST_NS = 2_000_000  # a profiler's start slows a first pass by some 0.7 ms
IDLE_FIRST = 0.5  # of what a slow first pass takes longer that must be idle time: else it does other work
PROFILER_STEP = r"^ProfilerStep#\d+$"  # torch.profiler's own marks, each under a name of its own
REPEATS, WHOLE = "the part that repeats", "the whole trace"


@dataclass(frozen=True)
class Focus:
    """The judged part of a device's time.

    Args:
        pieces: one interval, or one for each window of a named range.
        label: what it is: "step x 10" for a range or for launched steps, "period x 200", "the part that repeats", "the whole trace".
        spans: (start, end) of each pass where a range marks them: from the host's start to the GPU's end; else empty.
        repeats: whether a repetition was found.
        warm_up: the span of a first pass that is much slower than the others, because the GPU waits; it is not judged.
    """

    pieces: Union
    label: str
    spans: tuple[tuple[int, int], ...] = ()
    repeats: bool = False
    warm_up: tuple[int, int] | None = None

    @property
    def start_ns(self) -> int:
        """Where the judged part begins."""
        return int(self.pieces.starts[0])

    @property
    def end_ns(self) -> int:
        """Where it ends."""
        return int(self.pieces.ends[-1])


def focus(trace: Trace, view: DeviceView) -> Focus:
    """The steps that torch.profiler marks; else the instances of the outermost repeated range with work on this device; else
    the steps that the launches show, after their warm-up; else the operations that recur, where they are most of the trace;
    else all."""
    marked = _by_profiler_steps(trace, view) or _by_range(trace, view)
    if marked is not None:
        return _without_warm_up(view, marked)
    step_spans = find(trace, view)
    if step_spans is not None:
        return _by_steps(step_spans)
    first, last = _recurring(view)
    if last - first >= LEAST_PASSES and _coverage(view, first, last) >= COVERS:
        ends = view.ends[first : last + 1].max()
        return Focus(Union(view.starts[first : first + 1], np.array([ends])), REPEATS, (), True)
    return Focus(union(view.starts[:1], np.array([view.ends.max()])) if len(view.starts) else EMPTY, WHOLE)


def _by_steps(of: StepSpans) -> Focus:
    """The steps after the warm-up."""
    start, end = of.steady
    what = "step" if of.sure else "period"
    slow = ""
    if of.warm_up:
        slow = f", without the {f'first {of.warm_up}' if of.warm_up > 1 else 'first one'}"
    spans = tuple((int(a), int(b)) for a, b in zip(of.starts, of.ends, strict=True))[of.warm_up :]
    label = f"{what} x {len(spans)}{slow}"
    return Focus(Union(np.array([start]), np.array([end])), label, spans, True)


def slow_first(spans: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """(length of the first pass, median length of the others) in ns, where the first is much slower; else None.

    A pass lasts from its host's start, or from the end of the pass before on the GPU, to its end on the GPU.
    """
    if len(spans) < LEAST_PASSES:
        return None
    starts, ends = (np.array([span[i] for span in spans]) for i in (0, 1))
    lengths = ends - np.maximum(starts, np.concatenate([starts[:1], np.maximum.accumulate(ends)[:-1]]))
    first, usual = int(lengths[0]), int(np.median(lengths[1:]))
    return (first, usual) if first - usual > max((SLOW_FIRST - 1) * usual, LEAST_FIRST_NS) else None


def _without_warm_up(view: DeviceView, marked: Focus) -> Focus:
    """The passes but for a slow first one in which the GPU waits: it compiles, loads or tunes what the others reuse."""
    slow = slow_first(marked.spans)
    if slow is None or len(marked.spans) <= LEAST_PASSES:
        return marked
    first, second = marked.spans[0], marked.spans[1]
    if view.busy.gaps(*first).total_ns < IDLE_FIRST * (slow[0] - slow[1]):
        return marked
    later = view.starts[(view.starts >= first[1]) & (view.call_starts >= second[0])]
    if not len(later):
        return marked
    name, _, _ = marked.label.rpartition(" x ")
    label = f"{name} x {len(marked.spans) - 1}, without the slow first one"
    pieces = Union(np.array([later.min()]), np.array([marked.end_ns]))
    return Focus(pieces, label, marked.spans[1:], True, first)


def _coverage(view: DeviceView, first: int, last: int) -> float:
    """The smaller of the shares of the operations and of the compute time that operations ``first`` to ``last`` hold."""
    lengths = np.where(view.is_kernel, view.ends - view.starts, 0)
    lengths = lengths if lengths.sum() else view.ends - view.starts
    return min((last - first + 1) / len(lengths), float(lengths[first : last + 1].sum()) / max(int(lengths.sum()), 1))


def named(windows: list[tuple[int, int]], label: str) -> Focus:
    """The windows of the range that the user named."""
    starts, ends = (np.array([w[i] for w in windows], dtype=np.int64) for i in (0, 1))
    order = np.argsort(starts, kind="stable")
    spans = tuple((int(starts[i]), int(ends[i])) for i in order)
    return Focus(union(starts, ends), label, spans, len(windows) >= LEAST_PASSES)


def loops(ranges: pd.DataFrame, view: DeviceView) -> pd.DataFrame:
    """Ranges (``projected`` on this device) by domain and name, those with work: n instances, ops launched in them, first_ns and last_ns of that
    work, begin_ns and finish_ns on the host; share: of the launches from first_ns to last_ns, those that they hold; of_all:
    of all launches."""
    ranges = ranges[ranges["gpu_ops"] > 0]
    table = ranges.groupby(["domain", "name"], observed=True, sort=True).agg(
        n=("gpu_ops", "size"), ops=("gpu_ops", "sum"), first_ns=("first_ns", "min"), last_ns=("last_ns", "max"),
        begin_ns=("start_ns", "min"), finish_ns=("end_ns", "max"),
    )  # fmt: skip
    launches = np.sort(view.starts[np.unique(view.call, return_index=True)[1]])
    meanwhile = np.searchsorted(launches, table["last_ns"]) - np.searchsorted(launches, table["first_ns"])
    return table.assign(share=table["ops"] / np.maximum(meanwhile, 1), of_all=table["ops"] / max(len(launches), 1))


def _by_range(trace: Trace, view: DeviceView) -> Focus | None:
    ranges = projected(trace, view.index)
    table = loops(ranges, view)
    table = table[(table["n"] >= LEAST_PASSES) & (table["share"] >= MAJORITY)]
    if not len(table):
        return None
    most = table["ops"].max()  # the outermost of nested ranges holds as many launches as those inside it, or more
    best = table[table["ops"] >= most * (1 - STRANGERS)].sort_values(["n", "begin_ns"], kind="stable").iloc[:1]
    domain, name = best.index[0]
    instances = ranges[(ranges["gpu_ops"] > 0) & (ranges["name"] == name) & (ranges["domain"] == domain)].sort_values(
        "first_ns", kind="stable"
    )
    spans = tuple((int(a), int(b)) for a, b in instances[["start_ns", "last_ns"]].itertuples(index=False))
    pieces = union(best["first_ns"].to_numpy(), best["last_ns"].to_numpy())
    return Focus(pieces, f"{name} x {len(instances)}", spans, True)


def _by_profiler_steps(trace: Trace, view: DeviceView) -> Focus | None:
    """The steps of torch.profiler, with the work that any thread of the process launched in them."""
    names = trace.ranges["name"]
    marks = [c for c in names.cat.categories if re.match(PROFILER_STEP, str(c))]
    steps = trace.ranges[names.isin(marks)].sort_values("start_ns", kind="stable")
    if len(steps) < LEAST_PASSES:
        return None
    pid, called = view.ops["pid"].to_numpy(), view.call_starts
    spans, inside = [], np.zeros(len(view.ops), dtype=bool)
    for start, end, process in steps[["start_ns", "end_ns", "pid"]].itertuples(index=False):
        rows = np.flatnonzero((pid == process) & (called >= start) & (called < end))
        inside[rows] = True
        spans += [(int(start), int(view.ends[rows].max()))] if len(rows) else []
    if len(spans) < LEAST_PASSES:
        return None
    rows = np.flatnonzero(inside)
    pieces = Union(view.starts[rows[:1]], view.ends[rows].max(keepdims=True))
    return Focus(pieces, f"ProfilerStep x {len(spans)}", tuple(spans), True)


def _recurring(view: DeviceView) -> tuple[int, int]:
    """First and last operation of the loop that the trace ends with: what recurs in its second half, traced back."""
    kind = view.signatures
    count = len(kind)
    if count < 2 * LEAST_PASSES:
        return 0, -1
    late = np.bincount(kind[count // 2 :], minlength=kind.max() + 1)
    loops = late[kind] >= LEAST_PASSES
    if not loops.any():
        return 0, -1
    last = int(np.flatnonzero(loops)[-1])
    strangers = np.cumsum(~loops[last::-1])  # going back from the last one
    allowed = strangers <= STRANGERS * np.arange(1, last + 2) + 1
    reach = int(np.flatnonzero(allowed)[-1]) + 1
    inside = np.flatnonzero(loops[last - reach + 1 : last + 1])
    return last - reach + 1 + int(inside[0]), last
