"""Numbers of one variant of a capture by name, and what they rest on: what a prediction, a gate or a history speaks of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis.model import Window
from moeprof.compare.row import Row, make_row, times
from moeprof.errors import UsageError
from moeprof.kernels.ranking import rank
from moeprof.kernels.roofline import dram
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.stats.estimates import Rounds

MS = 1e6
# what a number rests on: clean times, times of the traced iterations, counts of them, counters of ncu, figures of the step
Kind = Literal["clean", "traced", "count", "counter", "fact"]


@dataclass(frozen=True)
class Measure:
    """A metric. ``power``: how a clean one follows the time, +1 or -1. One of ``of_row`` and ``of_window`` gives its value;
    with ``of_window`` that is the value of the representative iteration."""

    unit: str
    meaning: str
    kind: Kind
    of_row: Callable[[Row], float | None] | None = None
    of_window: Callable[[Window], float | None] | None = None
    power: int = 1


@dataclass(frozen=True)
class Sample:
    """A value and what it rests on: ``rounds`` of clean times, or the value of ``each`` traced iteration or counted launch."""

    value: float
    kind: Kind
    each: tuple[float, ...] = ()
    rounds: Rounds = ()
    power: int = 1

    @property
    def exact(self) -> bool:
        """Whether all that it rests on agrees."""
        return not self.rounds and all(v == self.value for v in self.each)


def _hidden(window: Window) -> float | None:
    busy = sum(c.busy_ns for c in window.copies)
    return sum(c.overlapped_ns for c in window.copies) / busy if busy else None


def _calls(*kinds: str) -> Callable[[Window], float | None]:
    """Host calls of these kinds, of all without any; None where the trace holds no call at all."""

    def count(window: Window) -> float | None:
        calls = window.launch.calls
        return float(sum(c.count for c in calls if not kinds or c.kind in kinds)) if calls else None

    return count


NAMES: dict[str, Measure] = {
    "step_time": Measure("ms", "clean time of an iteration", "clean", lambda r: r.time_ns.value / MS if r.time_ns else None),
    "of_limit": Measure("", "best possible time over clean time", "clean", lambda r: r.limit_ratio, power=-1),
    "tflop_per_s": Measure("TFLOP/s", "useful FLOPs over clean time", "clean", lambda r: r.work.tflop_per_s if r.work else None, power=-1),
    "gb_per_s": Measure("GB/s", "declared bytes over clean time", "clean", lambda r: r.work.gb_per_s if r.work else None, power=-1),
    "copy_overlap": Measure("", "share of copy time beside compute", "traced", of_window=_hidden),
    "exposed_copy": Measure("ms", "copy time in which no kernel runs", "traced", of_window=lambda w: w.ledger.exposed_copy_ns / MS),
    "exposed_comm": Measure("ms", "communication time in which no compute runs", "traced", of_window=lambda w: w.ledger.exposed_comm_ns / MS),
    "idle": Measure("ms", "time in which the device does nothing", "traced", of_window=lambda w: w.ledger.idle_ns / MS),
    "kernels": Measure("", "kernels of an iteration", "count", of_window=lambda w: float(w.launch.kernels)),
    "launches": Measure("", "kernel and graph launches of an iteration", "count", of_window=_calls("launch", "graph_launch")),
    "calls": Measure("", "CUDA calls of an iteration", "count", of_window=_calls()),
    "syncs": Measure("", "synchronising calls of an iteration", "count", of_window=lambda w: float(w.launch.sync_calls) if w.launch.calls else None),
    "copies": Measure("", "explicit copies of an iteration", "count", of_window=lambda w: float(sum(c.count for c in w.copies))),
    "dram_bytes": Measure("B", "bytes to and from device memory, by ncu, where it counted every kernel of an iteration", "counter"),
}  # fmt: skip
KERNEL, COUNTER, FACT = "kernel:", "counter:", "fact:"
FAMILIES = {
    KERNEL: Measure("ms", "time an iteration of the kernels whose name the pattern finds", "traced"),
    COUNTER: Measure("", "a counter of ncu, of the longest kernel", "counter"),
    FACT: Measure("", "a figure that the step gave of its work (Step.facts)", "fact"),
}
LACKS = {
    "clean": "the variant was not timed, or its work has no such number",
    "traced": "there is no trace of the variant that holds it",
    "count": "there is no trace of the variant that holds it",
    "counter": "ncu did not count it",
    "fact": "the variant gave no such figure as a number",
}


def known(metric: str) -> str:
    """The metric itself, if there is one of that name; raises UsageError with the names there are."""
    family, _, rest = metric.partition(":")
    if metric in NAMES or (f"{family}:" in FAMILIES and rest):
        if f"{family}:" == KERNEL:
            pattern(rest)
        return metric
    raise UsageError(
        f"there is no metric {metric!r}",
        f"known: {', '.join(NAMES)}, kernel:REGEX (ms), counter:NAME (of ncu, longest kernel), fact:NAME (of the step)",
    )


def pattern(text: str) -> re.Pattern[str]:
    """A compiled pattern of kernel names; raises UsageError for what is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{KERNEL}{text} holds no regular expression: {error}", "see Python's re") from error


def measure(metric: str) -> Measure:
    """What a known metric is."""
    return NAMES.get(metric) or FAMILIES[metric.partition(":")[0] + ":"]


def unit(metric: str) -> str:
    """The unit that a metric's value is in."""
    return measure(metric).unit


def value(study: Capture, variant: str, metric: str) -> float | None:
    """A metric of a variant; None where the capture does not hold it.

    Raises:
        UsageError: the capture has no such variant.
    """
    found = sample(study, variant, metric)
    return None if found is None else found.value


def sample(study: Capture, variant: str, metric: str) -> Sample | None:
    """A metric of a variant with what it rests on; None where the capture does not hold it.

    Raises:
        UsageError: the capture has no such variant.
    """
    found = study.variant(variant)
    if found is None:
        raise UsageError(
            f"{study.folder} has no variant {variant!r}",
            f"its variants: {', '.join(v.record.name for v in study.variants)}",
        )
    family, _, rest = metric.partition(":")
    if metric == "dram_bytes":
        return _dram(found)
    if metric in NAMES:
        return _named(found, study, NAMES[metric])
    return {KERNEL: _kernel, COUNTER: _counter, FACT: _fact}[f"{family}:"](found, rest)


def _named(variant: CapturedVariant, study: Capture, found: Measure) -> Sample | None:
    if found.of_window is None:
        of_row = None if found.of_row is None else found.of_row(make_row(variant, study))
        return None if of_row is None else Sample(of_row, found.kind, rounds=times(variant), power=found.power)
    window = variant.representative
    typical = None if window is None else found.of_window(window)
    if typical is None or variant.iterations is None:
        return None
    each = [found.of_window(w) for w in variant.iterations.windows]
    return Sample(typical, found.kind, tuple(v for v in each if v is not None))


def _kernel(variant: CapturedVariant, text: str) -> Sample | None:
    """Milliseconds an iteration of the kernels whose name the pattern finds: the mean, and those of each iteration."""
    view = variant.main_device
    if view is None or variant.iterations is None:
        return None
    spans = [(w.start_ns, w.end_ns) for w in variant.iterations.windows]
    sought = pattern(text)

    def spent(windows: Sequence[tuple[int, int]]) -> float | None:
        mine = [k.time_ns for k in rank(view, windows, "time").kernels if sought.search(k.name)]
        return sum(mine) / MS if mine else None

    mean = spent(spans)
    return None if mean is None else Sample(mean, "traced", tuple(spent([span]) or 0.0 for span in spans))


def _counter(variant: CapturedVariant, name: str) -> Sample | None:
    """A counter of the longest kernel that ncu counted, and of its other launches of the same shape."""
    frame = variant.counters
    if frame is None or not len(frame):
        return None
    durations = frame.loc[frame["metric"] == "gpu__time_duration.sum"].set_index("launch")["value"]
    if not len(durations):
        return None
    mine = frame.loc[frame["metric"] == name]
    longest = mine.loc[mine["launch"] == durations.idxmax()]
    if not len(longest):
        return None
    alike = mine.merge(longest[["kernel", "grid", "block"]], on=["kernel", "grid", "block"])
    return Sample(float(longest["value"].iloc[0]), "counter", tuple(float(v) for v in alike["value"]))


def _dram(variant: CapturedVariant) -> Sample | None:
    counted, moved = dram(variant)
    window = variant.representative
    return Sample(moved, "counter") if window is not None and counted and counted == window.launch.kernels else None


def _fact(variant: CapturedVariant, name: str) -> Sample | None:
    found = variant.record.facts.get(name)
    return Sample(float(found), "fact") if isinstance(found, (int, float)) else None
