"""What of a large recording stays in full detail, and the line that says what was reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.intervals import union
from moeprof.report.figures.timeline_lanes import LEAST_CALL_NS, Lane, Recording
from moeprof.report.figures.timeline_places import Flag, Pass, median_pass

MOST_BINS = 2_000  # of the overview, over all devices; of a lane's busy fractions
LONG_RANGE_BINS = 4  # a range longer than so many bins stays everywhere: there can be few of them
AROUND_NS = 10_000_000  # kept in full detail before and after a finding's place
AROUND = "20 ms around finding"
SHRINKS = 6  # how often a window that does not fit is halved before it is given up
LONG_NS = 20_000_000_000  # a recording of this length and more is counted in seconds

Windows = list[tuple[int, int]]


@dataclass(frozen=True)
class Candidate:
    """A window that is worth its full detail."""

    name: str
    start: int
    end: int

    def half(self) -> Candidate:
        """The middle half of it."""
        quarter = (self.end - self.start) // 4
        name = self.name if self.name.startswith("part of ") else f"part of {self.name}"
        return Candidate(name, self.start + quarter, self.end - quarter)


@dataclass(frozen=True)
class Detail:
    """The choice of what is drawn event by event.

    Args:
        windows: where everything is kept; None where the whole recording is.
        names: what each window is.
        kept: for each lane a mask of its events.
    """

    windows: Windows | None
    names: tuple[str, ...]
    kept: list[np.ndarray]

    @property
    def events(self) -> int:
        """How many events are kept."""
        return count(self.kept)


def detail_of(
    recording: Recording, lanes: list[Lane], flags: Sequence[Flag], passes: Sequence[Pass], budget: int
) -> Detail:
    """All events, where they fit the budget; else the median pass, the slowest one, 20 ms around each finding, and as much
    around the first of these as fits."""
    if sum(len(lane.starts) for lane in lanes) <= budget:
        return Detail(None, (), [np.ones(len(lane.starts), dtype=bool) for lane in lanes])

    def fits(chosen: Windows) -> bool:
        return count(kept_of(recording, lanes, chosen)) <= budget

    windows: Windows = []
    names = []
    candidates = _candidates(recording, lanes, flags, passes)
    for wish in candidates:
        candidate = wish
        for _ in range(SHRINKS):
            wider = _with(recording, windows, candidate.start, candidate.end)
            if fits(wider):
                windows = wider
                names.append(candidate.name)
                break
            candidate = candidate.half()
    middle, reach = (candidates[0].start + candidates[0].end) // 2, max(candidates[0].end - candidates[0].start, 1)
    while windows and reach < recording.span and fits(_with(recording, windows, middle - reach, middle + reach)):
        windows, reach = _with(recording, windows, middle - reach, middle + reach), 2 * reach
    return Detail(windows, tuple(names), kept_of(recording, lanes, windows))


def count(masks: list[np.ndarray]) -> int:
    """How many events the masks keep."""
    return sum(int(mask.sum()) for mask in masks)


def kept_of(recording: Recording, lanes: list[Lane], windows: Windows) -> list[np.ndarray]:
    """For each lane a mask of what overlaps a window, the calls that launched such work, and the long ranges."""
    long = max(recording.span // MOST_BINS, 1) * LONG_RANGE_BINS
    launchers = np.zeros(len(recording.trace.calls), dtype=bool)
    masks = []
    for lane in lanes:
        mask = np.zeros(len(lane.starts), dtype=bool)
        for low, high in windows:
            a, b = np.searchsorted(lane.reach, low, side="right"), np.searchsorted(lane.starts, high, side="left")
            mask[a:b] |= lane.ends[a:b] > low
        if lane.kind == "ranges":
            mask |= lane.ends - lane.starts >= long
        if lane.kind == "work":
            call = recording.devices[lane.group].call[lane.rows[mask]]
            launchers[call[call >= 0]] = True
        masks.append(mask)
    return [
        mask | launchers[lane.rows] if lane.kind == "calls" else mask for lane, mask in zip(lanes, masks, strict=True)
    ]


def _candidates(
    recording: Recording, lanes: list[Lane], flags: Sequence[Flag], passes: Sequence[Pass]
) -> list[Candidate]:
    candidates = []
    if passes:
        median, slowest = median_pass(passes), max(passes, key=lambda p: (p.end_ns - p.start_ns, -p.start_ns))
        candidates.append(Candidate("the median pass", median.start_ns, median.end_ns))
        if slowest != median:
            candidates.append(Candidate("the slowest pass", slowest.start_ns, slowest.end_ns))
    candidates += [Candidate(f"{AROUND} {f.number}", f.start_ns - AROUND_NS, f.start_ns + AROUND_NS) for f in flags]
    if not candidates:
        middle = _half_begun(recording, lanes)
        candidates.append(Candidate("20 ms in the middle of the work", middle - AROUND_NS, middle + AROUND_NS))
    return candidates


def _half_begun(recording: Recording, lanes: list[Lane]) -> int:
    """Where half of the operations (without any: of the recording) have passed."""
    starts = np.sort(np.concatenate([lane.starts for lane in lanes if lane.kind == "work"] or [np.empty(0, np.int64)]))
    return int(starts[len(starts) // 2]) if len(starts) else (recording.start + recording.end) // 2


def _with(recording: Recording, windows: Windows, low: int, high: int) -> Windows:
    """The windows and one more, merged, inside the recording."""
    starts, ends = np.array([*windows, (max(low, recording.start), min(high, recording.end))], dtype=np.int64).T
    merged = union(starts, ends)
    return [(int(a), int(b)) for a, b in zip(merged.starts, merged.ends, strict=True)]


def note_of(recording: Recording, lanes: list[Lane], detail: Detail, hidden: int) -> str:
    """What was reduced and left out, in one line; "" where nothing was."""
    parts = []
    if detail.windows is not None:
        unit, scale = ("s", 1e9) if recording.span >= LONG_NS else ("ms", 1e6)
        places = ", ".join(
            f"{(a - recording.start) / scale:.1f} to {(b - recording.start) / scale:.1f} {unit}"
            for a, b in detail.windows
        )
        total = sum(len(lane.starts) for lane in lanes)
        what = f"In full detail: {', '.join(_folded(detail.names))}, with what lies around ({places}). Elsewhere"
        parts.append(
            f"{total:,} events, {detail.events:,} of them drawn one by one. {what if detail.names else 'Everywhere'} each lane "
            "shows the share of busy time. The overview is exact. `moeprof export --format chrome-trace` writes every event."
        )
    if hidden:
        parts.append(
            f"{hidden:,} short host calls (below {LEAST_CALL_NS // 1000} µs, no launch, copy or wait) are left out."
        )
    return " ".join(parts)


def _folded(names: Sequence[str]) -> list[str]:
    """The windows around findings as one entry."""
    around = [name.rpartition(" ")[2] for name in names if name.startswith(AROUND)]
    rest = [name for name in names if not name.startswith(AROUND)]
    return rest + ([f"{AROUND}{'s' * (len(around) > 1)} {', '.join(around)}"] if around else [])


def home_of(recording: Recording, passes: Sequence[Pass], flags: Sequence[Flag]) -> list[int]:
    """What is shown first, in ns from the beginning: two typical passes; else the first finding; else all."""
    span = recording.span
    if len(passes) > 2:
        median = min(list(passes).index(median_pass(passes)), len(passes) - 2)
        low, high = passes[median].start_ns - recording.start, passes[median + 1].end_ns - recording.start
        pad = (high - low) // 50
        return [max(low - pad, 0), min(high + pad, span)]
    if flags and span > 4 * AROUND_NS:
        middle = flags[0].start_ns - recording.start
        return [max(middle - AROUND_NS, 0), min(middle + AROUND_NS, span)]
    return [0, span]
