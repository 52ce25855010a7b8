"""Steps: the periods of a program's repeating work, such as a decoded token or a training iteration.

Sources, in this order: step marks of a profiler, NVTX ranges by family (numbers in their names folded), and anchors:
kinds of launches that occur once a period. Anchors need no marks. The launches are one sequence of kinds, in order of their
calls; a replay of a CUDA graph is one launch. Kinds that occur equally often are the marks of one level of repetition: a
layer, a step, a request. ``_level`` says which level is the step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import SlowStep, Steps
from moeprof.analysis.projection import projected
from moeprof.trace import Trace

LEAST_STEPS = 3  # periods from which a thing counts as repeating
MANY_STEPS = 8  # from which the outermost level is the step; a level above it with fewer is a request or an epoch
LEAST_COVERAGE = 0.8  # of the launches of the repeating part that must lie in steps of the usual make-up
LEAST_SHARE = 0.3  # of all launches that the steps must hold, unless the trace ends with them
END_SHARE = 0.02  # of all launches, where the trace ends with the steps
ALIKE = 0.7  # Jaccard index of a step's kinds of launches with the usual ones
SIZES = (0.5, 2.0)  # a usual step's launches, as multiples of the median
NEAR = 1.1  # counts within this factor belong to one level
CANDIDATES = 3  # kinds tried for each count
LEVELS = 40  # counts tried, those with most kinds first
REGULAR = 0.5  # of the distances between a kind's places that must be near the median
SAME_BEFORE = 0.9  # of the places must have the same launch before them
LONGEST = 300_000  # launches looked at, the last ones
LATE_SHARE = 0.9  # steps that reach beyond this share of the launches end the trace
MAJORITY = 0.5  # of the launches between a family's first and last instance that it must hold
OUTERMOST = 0.8  # of the launches of the largest family that a family must hold to be a step
WARM = 1.5  # a leading step longer than this multiple of the median warms up
SLOW = 1.2  # a step longer than this multiple of the median is reported
SLOWEST = 5  # so many are reported
MARKS = re.compile(r"^(ProfilerStep#|execute_(context_)?\d)")  # of torch.profiler and of vLLM: one per step
STEP_WORDS = re.compile(r"(?<![a-z])(step|iter|iteration|token|decode|microbatch)(?![a-z])", re.IGNORECASE)
ONCE_A_STEP = re.compile(  # kernels that choose a token or take a loss
    r"argmax|multinomial|sampling|samplekernel|top_?k_?top_?p|top_?p_|gumbel|nll_loss|cross_?entropy", re.IGNORECASE
)


@dataclass(frozen=True)
class StepSpans:
    """The steps of one device.

    Args:
        device: its index.
        starts: start of each step's first operation, ns, ascending.
        end: end of the last step, ns.
        source: "profiler", "range" or "anchor".
        name: the family of ranges, or the anchor's kernel.
        coverage: share of the launches of the repeating part that lie in steps of the usual make-up.
        sure: whether a mark, or a kernel that chooses a token or takes a loss, shows that these are steps. Else they are
            periods: the trace does not show whether one is a step or a layer.
    """

    device: int
    starts: Times
    end: int
    source: Literal["profiler", "range", "anchor"]
    name: str
    coverage: float
    sure: bool

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def ends(self) -> Times:
        """End of each step: steps tile, so that the gaps between them are counted once."""
        return np.append(self.starts[1:], self.end)

    @cached_property
    def lengths(self) -> Times:
        """Length of each step, ns."""
        return self.ends - self.starts

    @cached_property
    def median_ns(self) -> float:
        """Median length."""
        return float(np.median(self.lengths))

    @cached_property
    def warm_up(self) -> int:
        """Number of leading steps that are longer than WARM times the median; never more than half of them."""
        usual = self.lengths <= WARM * self.median_ns
        return min(int(np.argmax(usual)), len(self) // 2)

    @property
    def steady(self) -> tuple[int, int]:
        """(start, end) of the steps after the warm-up, ns."""
        return int(self.starts[self.warm_up]), self.end


def find(trace: Trace, view: DeviceView) -> StepSpans | None:
    """The steps of one device, or None where no repetition covers enough of its launches; found once for a view and its ranges."""
    ranges, spans = view.known.get("steps", (None, None))
    if ranges is not trace.ranges:
        spans = _found(trace, view)
        view.known["steps"] = trace.ranges, spans
    return spans


def _found(trace: Trace, view: DeviceView) -> StepSpans | None:
    if not len(view.ops):
        return None
    launches = _launches(view)
    marked = _marks(trace, view)
    if marked is None:
        return _from_anchors(view, launches)
    return _from_ranges(view, launches, *marked) if len(marked[0]) >= LEAST_STEPS else None


def summary(view: DeviceView, spans: StepSpans) -> Steps:
    """How long the steps take, and what the slow ones have more of than the median step."""
    steady = spans.lengths[spans.warm_up :]
    p50, p90, p99 = (float(q) for q in np.quantile(steady, (0.5, 0.9, 0.99)))
    return Steps(
        device=spans.device, count=len(spans), source=spans.source, name=spans.name, coverage=spans.coverage,
        sure=spans.sure, median_ns=p50, p90_ns=p90, p99_ns=p99, start_ns=int(spans.starts[0]), end_ns=spans.end,
        set_up_ns=int(spans.starts[0] - view.starts[0]), warm_up=spans.warm_up,
        tail_ns=int(max(view.ends.max() - spans.end, 0)), slow=_slow(view, spans),
    )  # fmt: skip


def family(name: str) -> str:
    """A range's name with its numbers folded: ``step_12`` and ``step_13`` are ``step_#``."""
    return re.sub(r"(0x[0-9a-fA-F]+|\d+(\.\d+)?)", "#", name)


def _slow(view: DeviceView, spans: StepSpans) -> tuple[SlowStep, ...]:
    lengths, starts, ends = spans.lengths, spans.starts, spans.ends
    middle = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
    usual = _owners(view, int(starts[middle]), int(ends[middle]))
    rows = []
    order = spans.warm_up + np.argsort(-lengths[spans.warm_up :], kind="stable")
    for i in order[:SLOWEST]:
        if lengths[i] <= SLOW * spans.median_ns:
            break
        owners = _owners(view, int(starts[i]), int(ends[i]))
        owner = max(owners, key=lambda name: owners[name] - usual[name])
        more = owners[owner] - usual[owner]
        rows.append(SlowStep(int(i), int(starts[i]), int(lengths[i]), owner, int(more)))
    return tuple(rows)


def _owners(view: DeviceView, start: int, end: int) -> dict[str, int]:
    """ns of each owner of a window, idle time split by what the host did."""
    owned, idled = ledger(view, start, end), idle(view, start, end)
    return {
        "compute": owned.compute_ns, "exposed communication": owned.exposed_comm_ns,
        "exposed copy": owned.exposed_copy_ns, "exposed migration": owned.exposed_migration_ns,
        "exposed memset": owned.exposed_memset_ns, "idle: launch": idled.launch_ns, "idle: sync": idled.sync_ns,
        "idle: host": idled.host_ns, "idle: dependency": idled.dependency_ns, "idle: edge": idled.edge_ns,
    }  # fmt: skip


def _marks(trace: Trace, view: DeviceView) -> tuple[pd.DataFrame, str] | None:
    """The ranges that mark steps, in order, and their family: a profiler's own marks, however few; else the family with at
    least LEAST_STEPS instances that holds most launches."""
    ranges = projected(trace, view.index)
    ranges = ranges[ranges["gpu_ops"] > 0]
    if not len(ranges):
        return None
    names = ranges["name"].astype(str)
    marks = {name: MARKS.match(name) for name in names.unique()}
    folded = {name: mark[1] if mark else family(name) for name, mark in marks.items()}
    ranges = ranges.assign(family=names.map(folded))
    launches = np.sort(view.starts[np.unique(view.call, return_index=True)[1]])
    best: tuple[tuple[bool, bool, int], pd.DataFrame, str] | None = None
    table = ranges.groupby(["domain", "family"], observed=True, sort=False)["gpu_ops"].agg(["size", "sum"])
    for (domain, name), size, held in table.itertuples(name=None):
        mark = bool(MARKS.match(f"{name}0"))
        if held < OUTERMOST * table["sum"].max() or (size < LEAST_STEPS and not mark):
            continue
        rows = ranges[(ranges["domain"] == domain) & (ranges["family"] == name)].sort_values("start_ns", kind="stable")
        first, last = np.searchsorted(launches, [rows["first_ns"].min(), rows["last_ns"].max()])
        if held < MAJORITY * (last - first) or _overlap(rows):
            continue
        rank = (mark, bool(STEP_WORDS.search(str(name))), -int(size))  # of equals the outermost
        if best is None or rank > best[0]:
            best = rank, rows, str(name)
    return best and best[1:]


def _overlap(rows: pd.DataFrame) -> bool:
    """Whether most instances of a family begin before the instance before them has ended: they are no sequence of steps."""
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    return len(rows) > 1 and bool(np.mean(starts[1:] < ends[:-1]) > MAJORITY)


def _from_ranges(view: DeviceView, launches: _Launches, rows: pd.DataFrame, name: str) -> StepSpans | None:
    """Steps that tile: each holds the launches of any thread from its range's start to the start of the next range."""
    begun = launches.times
    places = np.searchsorted(begun, rows["start_ns"].to_numpy())
    end = int(np.searchsorted(begun, rows["end_ns"].max(), side="right"))
    places = np.unique(places[places < end])
    if len(places) < LEAST_STEPS:
        return None
    good, size, _ = _makeup(launches, places, end)
    starts, last = _times(view, launches, np.append(places, end))
    coverage = float((good * size).sum() / size.sum())
    marked = MARKS.match(f"{name}0") is not None
    return StepSpans(view.index, starts, last, "profiler" if marked else "range", name, coverage, sure=True)


@dataclass(frozen=True)
class _Launches:
    """The launches of a device in order of their calls: kind is a small integer, row an operation of each, times the start
    of its call, or of the operation where the call is not known."""

    kind: Times
    row: Times
    times: Times

    @cached_property
    def kinds(self) -> int:
        return int(self.kind.max()) + 1 if len(self.kind) else 0

    @cached_property
    def counts(self) -> Times:
        return np.bincount(self.kind, minlength=self.kinds)

    @cached_property
    def _by_kind(self) -> tuple[Times, Times]:
        return np.argsort(self.kind, kind="stable"), np.concatenate([[0], np.cumsum(self.counts)])

    def places(self, kind: int) -> Times:
        """Where a kind occurs, ascending."""
        order, begins = self._by_kind
        return order[begins[kind] : begins[kind + 1]]


@dataclass(frozen=True)
class _Level:
    """A level of repetition, marked by ``places`` of one kind."""

    kind: int
    places: Times
    period: int  # launches, median
    coverage: float
    share: float
    complete: bool  # whether the last segment has the usual kinds of launches
    alike: int  # kinds that occur equally often
    chooses: bool  # whether one of them chooses a token or takes a loss

    @property
    def score(self) -> tuple[int, float]:
        return self.alike, self.coverage * self.share


def _from_anchors(view: DeviceView, launches: _Launches) -> StepSpans | None:
    if len(launches.kind) < 2 * LEAST_STEPS:
        return None
    level = _level(list(_levels(view, launches)))
    if level is None:
        return None
    bounds = np.append(level.places, min(level.places[-1] + level.period, len(launches.kind)))
    if not level.complete:
        bounds = bounds[:-1]
    starts, end = _times(view, launches, bounds)
    name = str(view.ops["name"].iloc[launches.row[level.places[0]]])
    return StepSpans(view.index, starts, end, "anchor", name, level.coverage, sure=level.chooses)


def _launches(view: DeviceView) -> _Launches:
    """The launches of a device, the last LONGEST of them."""
    call, ops = view.call, view.ops
    known = call >= 0
    times = np.where(known, view.call_starts, view.starts)
    order = np.argsort(times, kind="stable")
    again = pd.Series(call[order]).duplicated().to_numpy() & known[order]
    size = np.frexp(np.maximum(ops["bytes"].to_numpy(), 0).astype(float))[1]
    kind = ops["kind"].cat.codes.to_numpy().astype(np.int64)
    name = ops["name"].cat.codes.to_numpy().astype(np.int64)
    mixed = (kind << 40) + (name << 10) + np.where(view.is_kernel, 0, size)
    replays = view.in_graph & known
    if replays.any():  # a replay is one launch: its first kernel and the number of its operations stand for it
        replayed = np.bincount(call[known])[np.maximum(call, 0)]
        mixed = np.where(replays, -1 - (name << 20) - replayed, mixed)
    row = order[~again][-LONGEST:]
    return _Launches(pd.factorize(mixed[row])[0].astype(np.int64), row, times[row])


def _levels(view: DeviceView, launches: _Launches) -> Iterable[_Level]:
    counts = launches.counts
    tried, alike = np.unique(counts[counts >= LEAST_STEPS], return_counts=True)
    for count in tried[np.argsort(-alike, kind="stable")][:LEVELS]:
        kinds = sorted(map(int, np.flatnonzero(counts == count)), key=lambda k: int(launches.places(k)[0]))
        names = (str(view.ops["name"].iloc[launches.row[launches.places(k)[0]]]) for k in kinds)
        chooses = any(ONCE_A_STEP.search(name) for name in names)
        levels = [_measured(launches, k, len(kinds), chooses) for k in kinds[:CANDIDATES]]
        good = [level for level in levels if level is not None]
        if good:  # of equals the kind that occurs first: a step begins with it
            yield max(good, key=lambda level: round(level.coverage * level.share, 2))


def _measured(launches: _Launches, kind: int, alike: int, chooses: bool) -> _Level | None:
    """What the segments between a kind's places have in common; None where too little."""
    places, total = launches.places(kind), len(launches.kind)
    gaps = np.diff(places)
    period = int(np.median(gaps))
    regular = (gaps >= SIZES[0] * period) & (gaps <= SIZES[1] * period)
    if period < 2 or regular.mean() < REGULAR:
        return None
    places = _begun(launches.kind, places, period)
    end = min(int(places[-1]) + period, total)
    good, size, has_usual = _makeup(launches, places, end)
    covered = np.cumsum((size * good)[::-1])[::-1] / np.cumsum(size[::-1])[::-1]
    enough = np.flatnonzero(covered >= LEAST_COVERAGE)
    if not len(enough) or enough[0] > len(places) / 2 or good.sum() < LEAST_STEPS:
        return None
    first = int(enough[0])  # leading segments may be unlike: loading and compilation lie between them
    share = float(size[first:].sum() / total)
    if share < (END_SHARE if end >= LATE_SHARE * total else LEAST_SHARE):
        return None
    return _Level(kind, places, period, float(covered[first]), share, bool(has_usual[-1]), alike, chooses)


def _begun(kind: Times, places: Times, period: int) -> Times:
    """The places moved back over the launches that come before each of them, the first one included: a step may begin with
    kinds that occur in it more than once."""
    back = 0
    while back < min(period - 1, places[0]):
        before = kind[places - back - 1]
        if np.mean(before == before[0]) < SAME_BEFORE:
            break
        back += 1
    return places - back


def _makeup(launches: _Launches, places: Times, end: int) -> tuple[np.ndarray, Times, np.ndarray]:
    """For each segment from one place to the next (the last one to ``end``): whether it has the usual size and kinds of
    launches, its number of launches, and whether it has most of the usual kinds, whatever else it has."""
    count = len(places)
    size = np.diff(np.append(places, end))
    inside = launches.kind[places[0] : end]
    present = np.zeros((count, launches.kinds), dtype=bool)
    present[np.repeat(np.arange(count), size), inside] = True
    usual = present.sum(axis=0) >= count / 2
    shared = present[:, usual].sum(axis=1)
    either = usual.sum() + present.sum(axis=1) - shared
    period = np.median(size)
    good = (shared >= ALIKE * either) & (size >= SIZES[0] * period) & (size <= SIZES[1] * period)
    return good, size, shared >= ALIKE * usual.sum()


def _level(levels: list[_Level]) -> _Level | None:
    """Which level is the step: of those at which a token is chosen or a loss is taken the innermost, else the outermost
    with MANY_STEPS periods, else the outermost."""
    groups: list[list[_Level]] = []
    for level in sorted(levels, key=lambda of: len(of.places)):
        if groups and len(level.places) <= NEAR * len(groups[-1][0].places):
            groups[-1].append(level)
        else:
            groups.append([level])
    if not groups:
        return None
    choosing = [group for group in groups if any(level.chooses for level in group)]
    many = [group for group in groups if len(group[0].places) >= MANY_STEPS]
    group = choosing[-1] if choosing else (many or groups)[0]
    return max(group, key=lambda level: level.score)


def _times(view: DeviceView, launches: _Launches, bounds: Times) -> tuple[Times, int]:
    """Start of the first operation of each segment, and the end of the last operation of the last one."""
    rows = launches.row[bounds[0] : bounds[-1]]
    first = np.minimum.reduceat(view.starts[rows], bounds[:-1] - bounds[0])
    last_launches = launches.row[bounds[-2] : bounds[-1]]
    calls = view.call[last_launches]
    of_last = np.isin(view.call, calls[calls >= 0])
    of_last[last_launches] = True
    return np.maximum.accumulate(first), int(view.ends[of_last].max())
