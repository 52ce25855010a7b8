"""The verdict on two variants' records: their undisturbed rounds, the baseline's twin, and what disturbed other rounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from moeprof.stats import estimates
from moeprof.stats.estimates import Rounds, Verdict
from moeprof.storage.manifest import Manifest, Round, VariantRecord


def times(rounds: tuple[Round, ...]) -> list[tuple[int, ...]]:
    """The clean times in ns of the undisturbed rounds, round by round."""
    return [r.times_ns for r in rounds if r.used]


def verdict(
    baseline: VariantRecord,
    candidate: VariantRecord,
    looks: int = 1,
    paired: bool = True,
    others: tuple[VariantRecord, ...] = (),
) -> Verdict | None:
    """``candidate`` against ``baseline``, on undisturbed rounds only; None where one of the two has no times.

    Args:
        looks: how often the rounds may have been examined to decide whether to go on.
        paired: both were timed in the same rounds, which are matched by their numbers.
        others: timed in the same rounds; an UNCLEAR verdict names what disturbed their turns too.
    """
    sides: list[Rounds] = [times(baseline.rounds), times(candidate.rounds)]
    twin: Rounds | None = times(baseline.twin) or None
    if paired:
        sides, twin = _matched(baseline, candidate)
    judged = estimates.verdict(sides[0], sides[1], paired, twin, looks)
    if judged is None or judged.word != "UNCLEAR":
        return judged
    named = disturbers(baseline, candidate, *(o for o in others if o.name not in (baseline.name, candidate.name)))
    if not named:
        return judged
    return replace(judged, settle=f"{judged.settle}; end what disturbed rounds: {named}")


def across(before: Manifest, after: Manifest, name: str) -> Verdict | None:
    """Variant ``name`` of two captures, which were not timed in the same rounds. None where one has no such variant or times."""
    old, new = before.variant(name), after.variant(name)
    if old is None or new is None:
        return None
    return verdict(old, new, max(before.looks, after.looks), paired=False)


def _matched(baseline: VariantRecord, candidate: VariantRecord) -> tuple[list[Rounds], Rounds | None]:
    """Both sides' rounds and the twin's, by number; only rounds that all of them have."""
    before, after = ({r.index: r.times_ns for r in side.used if r.times_ns} for side in (baseline, candidate))
    repeated = {r.index: r.times_ns for r in baseline.twin if r.used and r.times_ns}
    common = sorted(before.keys() & after.keys())
    twin = [repeated[i] for i in common] if repeated and all(i in repeated for i in common) else None
    return [[before[i] for i in common], [after[i] for i in common]], twin


def disturbers(*records: VariantRecord) -> str:
    """What disturbed rounds, with the number of turns, the most frequent first; empty where nothing did."""
    rounds = [r for record in records for r in (*record.rounds, *record.twin)]
    counts = Counter(reason for r in rounds for reason in r.disturbed if not r.used)
    return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def left_out(*records: VariantRecord) -> int:
    """How many rounds were disturbed and do not count."""
    return len({r.index for record in records for r in (*record.rounds, *record.twin) if not r.used})
