"""Captures for tests: the recorded sample, copied and changed where a test says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moeprof import resources
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.storage import manifest
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Manifest, Round, VariantRecord

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
Change = Callable[[Manifest], Manifest]


def made(folder: Path, *changes: Change, light: bool = False) -> Path:
    """A copy of the sample at ``folder`` with a changed manifest; ``light`` without traces and counters."""
    found = manifest.read(SAMPLE)
    if light:
        folder.mkdir(parents=True)
        found = replace(found, variants=tuple(replace(v, parts=()) for v in found.variants))
    else:
        shutil.copytree(SAMPLE, folder)
    for change in changes:
        found = change(found)
    (folder / manifest.FILE).write_text(dumps(found), encoding="utf-8")
    return folder


def variant(name: str, change: Callable[[VariantRecord], VariantRecord]) -> Change:
    """Change one variant's record."""
    return lambda found: replace(found, variants=tuple(change(v) if v.name == name else v for v in found.variants))


def timed(name: str, rounds: Sequence[Sequence[float]]) -> Change:
    """Give a variant these clean times, in ns."""
    kept = tuple(Round(i, 0, tuple(int(t) for t in times)) for i, times in enumerate(rounds))
    return variant(name, lambda v: replace(v, rounds=kept))


def recorded(found: CapturedVariant, **data: Any) -> CapturedVariant:
    """The variant with other ``data`` (trace, counters, iterations) in place of what its files contain."""
    recording = replace(found.recording)  # nothing is read yet
    vars(recording).update({name: getattr(found, name) for name in ("trace", "counters", "iterations")} | data)
    return replace(found, recording=recording)


def around(mean_ns: float, spread: float = 0.001, rounds: int = 8, seed: int = 0) -> list[list[float]]:
    """Rounds of five samples: rounds differ by ``spread`` (of the mean, one standard deviation), samples inside by a tenth of it."""
    rng = np.random.default_rng(seed)
    means = mean_ns * (1 + spread * rng.standard_normal(rounds))
    return [list(m * (1 + spread / 10 * rng.standard_normal(5))) for m in means]


def another_gpu(found: Manifest) -> Manifest:
    """The same capture from another GPU."""
    environment = found.environment
    return replace(
        found,
        environment=replace(
            environment, gpus_before=tuple(replace(g, name="NVIDIA L4") for g in environment.gpus_before)
        ),
    )


class Ran:
    """What a command said and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.words = " ".join((out + err).split())  # tables wrap long cells


def answer(ran: Ran) -> dict[str, Any]:
    """The JSON of a command that went well."""
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def marked(sample: Capture) -> Capture:
    """The sample with a twin of its baseline, and two rounds that something disturbed."""
    bad = {2: ("thermal (software)",), 5: ("another process on the GPU",)}

    def mark(record: VariantRecord) -> VariantRecord:
        own = bad if record.name == "overlap" else {}
        rounds = tuple(replace(r, used=r.index not in bad, disturbed=own.get(r.index, ())) for r in record.rounds)
        return replace(record, rounds=rounds, twin=rounds if record.name == "baseline" else ())

    variants = tuple(replace(v, record=mark(v.record)) for v in sample.variants)
    return replace(
        sample, variants=variants, manifest=replace(sample.manifest, variants=tuple(v.record for v in variants))
    )
