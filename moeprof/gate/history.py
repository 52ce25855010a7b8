"""One variant over many captures: its values with intervals, change points, and where captures do not compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from moeprof.compare.comparable import apart
from moeprof.errors import CaptureError, MoeprofError, UsageError
from moeprof.gate import metrics
from moeprof.gate.gate import Side, require_usable
from moeprof.gate.judge import spanned
from moeprof.gate.metrics import Sample
from moeprof.loaded import capture as captures
from moeprof.loaded.capture import Capture
from moeprof.notes import Note
from moeprof.stats import verdict as verdicts
from moeprof.stats.change_points import LEAST_VALUES, change_points
from moeprof.stats.estimates import Interval

FROM_MANIFEST = ("step_time", "tflop_per_s", "gb_per_s")  # metrics that need no trace
MOST = 400  # captures; the cost of the test for change points grows with their square


@dataclass(frozen=True)
class Change:
    """A change point at this capture: the medians before and after it. ``p`` is None where both are exact counts."""

    before: float
    after: float
    p: float | None

    @property
    def ratio(self) -> float | None:
        """After over before; None where before is zero."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True)
class Entry:
    """One capture.

    Args:
        value: the metric with its interval.
        missing: why there is no value.
        verdict: on the clean times, against the previous capture; only in a stretch too short to test for change points.
        breaks: differences (GPU, driver, ...) that end comparability with the previous capture.
        change: a change point at this capture.
    """

    capture: str
    created: str
    git: str | None
    gpu: str | None
    value: Interval | None = None
    missing: str = ""
    verdict: str | None = None
    breaks: tuple[Note, ...] = ()
    change: Change | None = None


@dataclass(frozen=True)
class History:
    """The entries, oldest capture first. ``notes``: what could not be tested."""

    workload: str
    variant: str
    metric: str
    unit: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    schema_version: int = 1


@dataclass(frozen=True)
class Level:
    """The median value of the captures ``first`` to ``last`` (places from 1), between which nothing changed."""

    first: int
    last: int
    value: float


def levels(shown: History) -> tuple[Level, ...]:
    """The levels of a history, cut at changes and where captures do not compare."""
    segments: list[list[tuple[int, float]]] = []
    for place, entry in enumerate(shown.entries, start=1):
        if entry.value is None:
            continue
        if not segments or entry.change is not None or entry.breaks:
            segments.append([])
        segments[-1].append((place, entry.value.value))
    return tuple(Level(s[0][0], s[-1][0], median(value for _, value in s)) for s in segments)


def long_enough(shown: History) -> bool:
    """Whether some stretch of comparable captures has as many as the test for change points needs."""
    longest = length = 0
    for entry in shown.entries:
        if entry.value is not None:
            length = 1 if entry.breaks else length + 1
            longest = max(longest, length)
    return longest >= LEAST_VALUES


def history(paths: Sequence[Path], variant: str | None, metric: str) -> History:
    """The history of a variant (default: the newest capture's optimized one, or its last) by a metric.

    Raises:
        UsageError: there is no such metric, or no capture has such a variant.
        CaptureError: one of them is no capture, or there is none.
    """
    metrics.known(metric)
    if not paths:
        raise CaptureError("there is no capture to show", "name some, or a folder of baselines: --baselines DIR")
    load = captures.bare if metric in FROM_MANIFEST else captures.load
    loaded = sorted((load(path) for path in paths), key=lambda s: s.manifest.created)[-MOST:]
    newest = loaded[-1].manifest
    name = variant or newest.chosen
    if not any(s.variant(name) for s in loaded):
        variants = ", ".join(v.name for v in newest.variants)
        raise UsageError(f"no capture has a variant {name!r}", f"the newest has: {variants}")
    samples = [_sample(s, name, metric) for s in loaded]
    entries = [_entry(capture, measured) for capture, measured in zip(loaded, samples, strict=True)]
    stretches = _stretches(loaded, entries)
    known = [measured if isinstance(measured, Sample) else None for measured in samples]
    notes = [f"only the newest {MOST} captures are shown"] if len(paths) > MOST else []
    for stretch in stretches:
        _mark_changes(entries, known, stretch)
        if len(stretch) < LEAST_VALUES and metrics.metric(metric).kind == "clean":
            _mark_verdicts(entries, loaded, stretch, name)
        if 1 < len(stretch) < LEAST_VALUES and not all(_exact(known[i]) for i in stretch):
            first, last = entries[stretch[0]].capture, entries[stretch[-1]].capture
            notes.append(
                f"{len(stretch)} captures from {first} to {last}: too few to find changes, {LEAST_VALUES} are needed"
            )
    return History(newest.name, name, metric, metrics.unit(metric), tuple(entries), tuple(notes))


def _sample(capture: Capture, variant: str, metric: str) -> Sample | str:
    """The sample, or why there is none."""
    if capture.variant(variant) is None:
        return f"it has no variant {variant!r}"
    try:
        require_usable(Side(capture, variant, capture.folder.name))
    except MoeprofError as error:
        return error.message
    return metrics.sample(capture, variant, metric) or metrics.LACKS[metrics.metric(metric).kind]


def _entry(capture: Capture, sample: Sample | str) -> Entry:
    manifest, gpus = capture.manifest, capture.manifest.environment.gpus_before
    entry = Entry(capture.folder.name, manifest.created, manifest.git, gpus[0].name if gpus else None)
    return replace(entry, missing=sample) if isinstance(sample, str) else replace(entry, value=spanned(sample))


def _stretches(loaded: Sequence[Capture], entries: list[Entry]) -> list[list[int]]:
    """The captures with a value, cut where two consecutive ones do not compare. Marks the entry after a cut."""
    stretches: list[list[int]] = []
    for index, entry in enumerate(entries):
        if entry.value is None:
            continue
        before = stretches[-1][-1] if stretches else None
        differences = () if before is None else apart(loaded[before].manifest, loaded[index].manifest)
        if before is None or differences:
            entries[index] = replace(entry, breaks=differences)
            stretches.append([])
        stretches[-1].append(index)
    return stretches


def _mark_changes(entries: list[Entry], samples: Sequence[Sample | None], stretch: list[int]) -> None:
    """Mark the change points of one stretch of comparable captures."""
    values = [sample for i in stretch if (sample := samples[i]) is not None]
    for place, index in enumerate(stretch[1:], start=1):
        before, after = values[place - 1], values[place]
        if _exact(before) and _exact(after) and before.value != after.value:
            entries[index] = replace(entries[index], change=Change(before.value, after.value, None))
    if all(_exact(sample) for sample in values) or min(sample.value for sample in values) <= 0:
        return  # equal counts need no test, and values at 0 have no ratio
    for point in change_points([sample.value for sample in values]):
        index = stretch[point.index]
        entries[index] = replace(entries[index], change=Change(point.before, point.after, point.p))


def _mark_verdicts(entries: list[Entry], loaded: Sequence[Capture], stretch: list[int], name: str) -> None:
    """Mark the verdict on the clean times of each capture against the previous one."""
    for before, index in pairwise(stretch):
        verdict = verdicts.across(loaded[before].manifest, loaded[index].manifest, name)
        entries[index] = replace(entries[index], verdict=None if verdict is None else verdict.word)


def _exact(sample: Sample | None) -> bool:
    return sample is not None and sample.kind in ("count", "fact") and sample.exact
