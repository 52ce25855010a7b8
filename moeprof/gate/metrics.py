"""The metrics of a variant by name, each with what it rests on: what a prediction, a gate and a history judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis.model import Window
from moeprof.compare.row import Row, make_row, times
from moeprof.errors import UsageError, choices
from moeprof.kernels.ranking import rank
from moeprof.kernels.roofline import dram
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.machine.ncu_metrics import DURATION
from moeprof.stats.estimates import Rounds

MS = 1e6
# What a metric rests on: clean times, times in the traced iterations, counts in them, counters of ncu, facts of the step
Kind = Literal["clean", "traced", "count", "counter", "fact"]


@dataclass(frozen=True)
class Metric:
    """A metric. One of ``of_row`` and ``of_window`` returns its value; ``of_window`` is applied to the representative iteration.

    ``power``: how a metric of clean times follows the time: +1, or -1 where it falls as the time grows.
    """

    unit: str
    meaning: str
    kind: Kind
    of_row: Callable[[Row], float | None] | None = None
    of_window: Callable[[Window], float | None] | None = None
    power: int = 1


@dataclass(frozen=True)
class Sample:
    """A value, and what it rests on: ``rounds`` of clean times in ns, or the value of ``each`` traced iteration or launch."""

    value: float
    kind: Kind
    each: tuple[float, ...] = ()
    rounds: Rounds = ()
    power: int = 1

    @property
    def exact(self) -> bool:
        """Whether all the values that it rests on are equal."""
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


NAMES: dict[str, Metric] = {
    "step_time": Metric("ms", "clean time of an iteration", "clean", lambda r: r.time_ns.value / MS if r.time_ns else None),
    "of_limit": Metric("", "best possible time over clean time", "clean", lambda r: r.limit_ratio, power=-1),
    "tflop_per_s": Metric("TFLOP/s", "useful FLOPs over clean time", "clean", lambda r: r.work.tflop_per_s if r.work else None, power=-1),
    "gb_per_s": Metric("GB/s", "declared bytes over clean time", "clean", lambda r: r.work.gb_per_s if r.work else None, power=-1),
    "copy_overlap": Metric("", "share of copy time beside compute", "traced", of_window=_hidden),
    "exposed_copy": Metric("ms", "copy time in which no kernel runs", "traced", of_window=lambda w: w.ledger.exposed_copy_ns / MS),
    "exposed_comm": Metric("ms", "communication time in which no compute runs", "traced", of_window=lambda w: w.ledger.exposed_comm_ns / MS),
    "idle": Metric("ms", "time in which the device does nothing", "traced", of_window=lambda w: w.ledger.idle_ns / MS),
    "kernels": Metric("", "kernels of an iteration", "count", of_window=lambda w: float(w.launch.kernels)),
    "launches": Metric("", "kernel and graph launches of an iteration", "count", of_window=_calls("launch", "graph_launch")),
    "calls": Metric("", "CUDA calls of an iteration", "count", of_window=_calls()),
    "syncs": Metric("", "synchronising calls of an iteration", "count", of_window=lambda w: float(w.launch.sync_calls) if w.launch.calls else None),
    "copies": Metric("", "explicit copies of an iteration", "count", of_window=lambda w: float(sum(c.count for c in w.copies))),
    "dram_bytes": Metric("B", "bytes to and from device memory, by ncu, where it counted every kernel of an iteration", "counter"),
}  # fmt: skip
KERNEL, COUNTER, FACT = "kernel:", "counter:", "fact:"
FAMILIES = {
    KERNEL: Metric("ms", "time per iteration of the kernels whose name the pattern finds", "traced"),
    COUNTER: Metric("", "a counter of ncu, of the longest kernel", "counter"),
    FACT: Metric("", "a figure that the step gave of its work (Step.facts)", "fact"),
}
LACKS = {
    "clean": "the variant was not timed, or its work has no such number",
    "traced": "there is no trace of the variant that holds it",
    "count": "there is no trace of the variant that holds it",
    "counter": "ncu did not count it",
    "fact": "the variant gave no such figure as a number",
}


def known(name: str) -> str:
    """The name itself, if there is such a metric.

    Raises:
        UsageError: there is none; the hint lists the known ones.
    """
    family, _, rest = name.partition(":")
    if name in NAMES or (f"{family}:" in FAMILIES and rest):
        if f"{family}:" == KERNEL:
            pattern(rest)
        return name
    raise UsageError(
        f"there is no metric {name!r}",
        f"{choices(name, NAMES, 'metrics')}, kernel:REGEX (ms), counter:NAME (of ncu, longest kernel), fact:NAME (of the step)",
    )


def pattern(text: str) -> re.Pattern[str]:
    """A compiled pattern of kernel names; raises UsageError for what is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{KERNEL}{text} is no regular expression: {error}", "see Python's re") from error


def metric(name: str) -> Metric:
    """The metric of a known name."""
    return NAMES.get(name) or FAMILIES[name.partition(":")[0] + ":"]


def unit(name: str) -> str:
    """The unit of a metric's value."""
    return metric(name).unit


def value(capture: Capture, variant: str, name: str) -> float | None:
    """A metric of a variant, in its unit; None where the capture does not contain it.

    Raises:
        UsageError: the capture has no such variant.
    """
    measured = sample(capture, variant, name)
    return None if measured is None else measured.value


def sample(capture: Capture, variant: str, name: str) -> Sample | None:
    """A metric of a variant with what it rests on; None where the capture does not contain it.

    Raises:
        UsageError: the capture has no such variant.
    """
    captured = capture.variant(variant)
    if captured is None:
        raise UsageError(
            f"{capture.folder} has no variant {variant!r}",
            choices(variant, (v.record.name for v in capture.variants), "its variants"),
        )
    if name == "dram_bytes":
        return _dram(captured)
    if name not in NAMES:
        family, _, rest = name.partition(":")
        return {KERNEL: _kernel, COUNTER: _counter, FACT: _fact}[f"{family}:"](captured, rest)
    chosen = NAMES[name]
    return _of_row(captured, capture, chosen) if chosen.of_window is None else _of_iterations(captured, chosen)


def _of_row(variant: CapturedVariant, capture: Capture, chosen: Metric) -> Sample | None:
    """A metric of clean times, with the rounds."""
    number = None if chosen.of_row is None else chosen.of_row(make_row(variant, capture))
    return None if number is None else Sample(number, chosen.kind, rounds=times(variant), power=chosen.power)


def _of_iterations(variant: CapturedVariant, chosen: Metric) -> Sample | None:
    """A metric of the traced iterations: of the representative one, and of each."""
    window = variant.representative
    if window is None or variant.iterations is None or chosen.of_window is None:
        return None
    typical = chosen.of_window(window)
    each = [chosen.of_window(w) for w in variant.iterations.windows]
    return None if typical is None else Sample(typical, chosen.kind, tuple(v for v in each if v is not None))


def _kernel(variant: CapturedVariant, text: str) -> Sample | None:
    """Milliseconds per iteration of the kernels whose name the pattern finds: the mean, and those of each iteration."""
    view = variant.main_device
    if view is None or variant.iterations is None:
        return None
    spans = [(w.start_ns, w.end_ns) for w in variant.iterations.windows]
    sought = pattern(text)

    def spent(windows: Sequence[tuple[int, int]]) -> float | None:
        matching = [k.time_ns for k in rank(view, windows, "time").kernels if sought.search(k.name)]
        return sum(matching) / MS if matching else None

    mean = spent(spans)
    return None if mean is None else Sample(mean, "traced", tuple(spent([span]) or 0.0 for span in spans))


def _counter(variant: CapturedVariant, name: str) -> Sample | None:
    """A counter of the longest kernel that ncu counted, and of its other launches of the same shape."""
    frame = variant.counters
    if frame is None or not len(frame):
        return None
    durations = frame.loc[frame["metric"] == DURATION].set_index("launch")["value"]
    if not len(durations):
        return None
    rows = frame.loc[frame["metric"] == name]
    longest = rows.loc[rows["launch"] == durations.idxmax()]
    if not len(longest):
        return None
    alike = rows.merge(longest[["kernel", "grid", "block"]], on=["kernel", "grid", "block"])
    return Sample(float(longest["value"].iloc[0]), "counter", tuple(float(v) for v in alike["value"]))


def _dram(variant: CapturedVariant) -> Sample | None:
    """Bytes to and from device memory, where ncu counted every kernel of an iteration."""
    counted, moved = dram(variant)
    window = variant.representative
    return Sample(moved, "counter") if window is not None and counted and counted == window.launch.kernels else None


def _fact(variant: CapturedVariant, name: str) -> Sample | None:
    fact = variant.record.facts.get(name)
    return Sample(float(fact), "fact") if isinstance(fact, (int, float)) else None
