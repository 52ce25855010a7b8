"""Numbers of one variant of a capture by name, and expectations of them: what a prediction or a gate speaks of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from moeprof.errors import UsageError
from moeprof.metrics.device import views
from moeprof.metrics.ranking import rank
from moeprof.rows import Row, make_row
from moeprof.study import Study, VariantStudy

MS = 1e6
# name -> (unit, meaning, value of a row)
NAMES: dict[str, tuple[str, str, Callable[[Row], float | None]]] = {
    "step_time": ("ms", "clean time of an iteration", lambda r: r.time_ns.value / MS if r.time_ns else None),
    "of_limit": ("", "best possible time over clean time", lambda r: r.limit_ratio),
    "tflop_per_s": ("TFLOP/s", "useful FLOPs over clean time", lambda r: r.work.tflop_per_s if r.work else None),
    "gb_per_s": ("GB/s", "declared bytes over clean time", lambda r: r.work.gb_per_s if r.work else None),
    "copy_overlap": ("", "share of copy time beside compute", lambda r: r.hidden_ratio),
    "exposed_copy": (
        "ms",
        "copy time in which no kernel runs",
        lambda r: r.ledger.exposed_copy_ns / MS if r.ledger else None,
    ),
    "idle": ("ms", "time in which the device does nothing", lambda r: r.ledger.idle_ns / MS if r.ledger else None),
    "kernels": ("", "kernels of an iteration", lambda r: float(r.launch.kernels) if r.launch else None),
    "calls": ("", "CUDA calls of an iteration", lambda r: None if r.calls is None else float(r.calls)),
    "syncs": ("", "synchronising calls of an iteration", lambda r: float(r.launch.sync_calls) if r.launch else None),
}
KERNEL, COUNTER = "kernel:", "counter:"
EXPECTATION = re.compile(r"(<=|>=|<|>)\s*([+-]?\d+(?:\.\d+)?)\s*(x|%)?")


@dataclass(frozen=True)
class Expectation:
    """``<0.5x``: less than half of what it was; ``<-20%``: fallen by more than a fifth; ``>0.9``: the value itself."""

    operator: str
    number: float
    unit: str  # "x", "%" or ""

    def measured(self, before: float | None, after: float) -> float | None:
        """The number that is compared with the expected one; None where it rests on a value of before that is not there."""
        if not self.unit:
            return after
        if before is None or before == 0:
            return None
        return after / before if self.unit == "x" else 100 * (after / before - 1)

    def holds(self, before: float | None, after: float | None) -> bool | None:
        """Whether it holds; None where it cannot be told."""
        found = None if after is None else self.measured(before, after)
        if found is None:
            return None
        return {
            "<": found < self.number,
            "<=": found <= self.number,
            ">": found > self.number,
            ">=": found >= self.number,
        }[self.operator]


def expectation(text: str) -> Expectation:
    """Parse an expectation; raises UsageError for what is none."""
    found = EXPECTATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no expectation", "give for example '<0.5x', '<-20%' or '>0.9'")
    return Expectation(found[1], float(found[2]), found[3] or "")


def known(metric: str) -> str:
    """The metric itself, if there is one of that name; raises UsageError with the names there are."""
    if metric in NAMES or (metric.startswith((KERNEL, COUNTER)) and len(metric.partition(":")[2]) > 0):
        return metric
    raise UsageError(
        f"there is no metric {metric!r}",
        f"known: {', '.join(NAMES)}, kernel:REGEX (ms), counter:NAME (of ncu, longest kernel)",
    )


def unit(metric: str) -> str:
    """The unit that a metric's value is in."""
    return "ms" if metric.startswith(KERNEL) else "" if metric.startswith(COUNTER) else NAMES[metric][0]


def value(study: Study, variant: str, metric: str) -> float | None:
    """A metric of a variant; None where the capture does not hold it.

    Raises:
        UsageError: the capture has no such variant.
    """
    found = study.variant(variant)
    if found is None:
        raise UsageError(
            f"{study.folder} has no variant {variant!r}",
            f"its variants: {', '.join(v.record.name for v in study.variants)}",
        )
    if metric.startswith(KERNEL):
        return _kernel(found, metric.removeprefix(KERNEL))
    if metric.startswith(COUNTER):
        return _counter(found, metric.removeprefix(COUNTER))
    return NAMES[metric][2](make_row(found, study))


def _kernel(variant: VariantStudy, pattern: str) -> float | None:
    """Milliseconds an iteration of the kernels whose name the pattern finds."""
    if variant.trace is None or variant.iterations is None:
        return None
    view = max(views(variant.trace), key=lambda v: len(v.ops))
    ranking = rank(view, [(w.start_ns, w.end_ns) for w in variant.iterations.windows], "time")
    mine = [k.time_ns for k in ranking.kernels if re.search(pattern, k.name)]
    return sum(mine) / MS if mine else None


def _counter(variant: VariantStudy, name: str) -> float | None:
    """A counter of the longest kernel that ncu counted."""
    frame = variant.counters
    if frame is None or not len(frame):
        return None
    durations = frame.loc[frame["metric"] == "gpu__time_duration.sum"].set_index("launch")["value"]
    if not len(durations):
        return None
    mine = frame.loc[(frame["launch"] == durations.idxmax()) & (frame["metric"] == name), "value"]
    return float(mine.iloc[0]) if len(mine) else None
