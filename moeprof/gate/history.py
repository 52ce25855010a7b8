"""One variant over many captures: its values with their intervals, where it changed, and where captures no longer compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from moeprof.compare.comparable import apart
from moeprof.errors import CaptureError, MoeprofError, UsageError
from moeprof.gate import metrics
from moeprof.gate.gate import Side, usable
from moeprof.gate.judge import spanned
from moeprof.gate.metrics import Sample
from moeprof.loaded import capture as study
from moeprof.loaded.capture import Capture
from moeprof.notes import Note
from moeprof.stats import verdict as verdicts
from moeprof.stats.change_points import LEAST_VALUES, change_points
from moeprof.stats.estimates import Interval

FROM_MANIFEST = ("step_time", "tflop_per_s", "gb_per_s")  # rest on no trace: a long history is read in no time
MOST = 400  # captures: the test for change points grows with their square


@dataclass(frozen=True)
class Change:
    """The level changes with this capture: the medians before and after. ``p`` is None where both are exact counts."""

    before: float
    after: float
    p: float | None


@dataclass(frozen=True)
class Entry:
    """One capture. ``missing`` says why there is no value; ``verdict``, in a stretch too short to test: that on the clean times
    against the capture before it; ``breaks``: in what it is unlike that one, so that nothing is compared over it; ``change``: the level changed with it."""

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
    """The entries in the order of their captures. ``notes``: what could not be tested, in words."""

    workload: str
    variant: str
    metric: str
    unit: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    schema_version: int = 1


def history(captures: Sequence[Path], variant: str | None, metric: str) -> History:
    """The history of a variant (default: the newest capture's optimized one, or its last) by a metric.

    Raises:
        UsageError: there is no such metric, or no capture has such a variant.
        CaptureError: one of them is no capture, or there is none.
    """
    metrics.known(metric)
    if not captures:
        raise CaptureError("there is no capture to show", "name some, or a folder of baselines: --baselines DIR")
    load = study.bare if metric in FROM_MANIFEST else study.load
    loaded = sorted((load(path) for path in captures), key=lambda s: s.manifest.created)[-MOST:]
    newest = loaded[-1].manifest
    name = variant or newest.chosen
    if not any(s.variant(name) for s in loaded):
        known = ", ".join(v.name for v in newest.variants)
        raise UsageError(f"no capture has a variant {name!r}", f"the newest has: {known}")
    samples = [_sample(s, name, metric) for s in loaded]
    entries = [_entry(s, found) for s, found in zip(loaded, samples, strict=True)]
    stretches = _stretches(loaded, entries)
    kept = [found if isinstance(found, Sample) else None for found in samples]
    notes = [f"only the newest {MOST} captures are shown"] if len(captures) > MOST else []
    for stretch in stretches:
        _mark(entries, kept, stretch)
        if len(stretch) < LEAST_VALUES and metrics.measure(metric).kind == "clean":
            _judge(entries, loaded, stretch, name)
        if 1 < len(stretch) < LEAST_VALUES and not all(_exact(kept[i]) for i in stretch):
            first, last = entries[stretch[0]].capture, entries[stretch[-1]].capture
            notes.append(
                f"{len(stretch)} captures from {first} to {last}: too few to find changes, {LEAST_VALUES} are needed"
            )
    return History(newest.name, name, metric, metrics.unit(metric), tuple(entries), tuple(notes))


def _sample(found: Capture, variant: str, metric: str) -> Sample | str:
    """The sample, or why there is none."""
    if found.variant(variant) is None:
        return f"it has no variant {variant!r}"
    try:
        usable(Side(found, variant, found.folder.name))
    except MoeprofError as error:
        return error.message
    return metrics.sample(found, variant, metric) or metrics.LACKS[metrics.measure(metric).kind]


def _entry(found: Capture, sample: Sample | str) -> Entry:
    gpus = found.manifest.environment.gpus_before
    entry = Entry(found.folder.name, found.manifest.created, found.manifest.git, gpus[0].name if gpus else None)
    return replace(entry, missing=sample) if isinstance(sample, str) else replace(entry, value=spanned(sample))


def _stretches(loaded: Sequence[Capture], entries: list[Entry]) -> list[list[int]]:
    """The captures with a value, cut where two that follow each other are unlike; marks the entries after a cut."""
    found: list[list[int]] = []
    for index, entry in enumerate(entries):
        if entry.value is None:
            continue
        before = found[-1][-1] if found else None
        differing = () if before is None else apart(loaded[before].manifest, loaded[index].manifest)
        if before is None or differing:
            entries[index] = replace(entry, breaks=differing)
            found.append([])
        found[-1].append(index)
    return found


def _mark(entries: list[Entry], samples: Sequence[Sample | None], stretch: list[int]) -> None:
    """Mark changes inside one stretch of like captures."""
    mine = [sample for i in stretch if (sample := samples[i]) is not None]
    for place, index in enumerate(stretch[1:], start=1):
        before, after = mine[place - 1], mine[place]
        if _exact(before) and _exact(after) and before.value != after.value:
            entries[index] = replace(entries[index], change=Change(before.value, after.value, None))
    if all(_exact(sample) for sample in mine) or min(sample.value for sample in mine) <= 0:
        return  # counts that agree need no test, and of values at 0 there is no ratio
    for point in change_points([sample.value for sample in mine]):
        index = stretch[point.index]
        entries[index] = replace(entries[index], change=Change(point.before, point.after, point.p))


def _judge(entries: list[Entry], loaded: Sequence[Capture], stretch: list[int], name: str) -> None:
    """Mark the verdict on each capture's clean times against the one before it."""
    for before, index in pairwise(stretch):
        found = verdicts.across(loaded[before].manifest, loaded[index].manifest, name)
        entries[index] = replace(entries[index], verdict=None if found is None else found.word)


def _exact(sample: Sample | None) -> bool:
    return sample is not None and sample.kind in ("count", "fact") and sample.exact
