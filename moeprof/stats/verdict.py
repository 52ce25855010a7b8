"""The verdict on two variants' records: the rounds that count, the twin of the baseline, and what disturbed the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from moeprof.stats import estimates
from moeprof.stats.estimates import Rounds, Verdict
from moeprof.storage.manifest import Manifest, Round, VariantRecord


def times(rounds: tuple[Round, ...]) -> list[tuple[int, ...]]:
    """The clean times of the rounds that count, round by round."""
    return [r.times_ns for r in rounds if r.used]


def verdict(
    baseline: VariantRecord,
    candidate: VariantRecord,
    looks: int = 1,
    paired: bool = True,
    others: tuple[VariantRecord, ...] = (),
) -> Verdict | None:
    """``candidate`` against ``baseline``, on undisturbed rounds alone; ``paired`` where both were timed in the same rounds,
    which are then matched by their numbers. ``others`` were timed in them too: what disturbed their turns is named as well.
    None where one of the two has no times."""
    sides: list[Rounds] = [times(baseline.rounds), times(candidate.rounds)]
    twin: Rounds | None = times(baseline.twin) or None
    if paired:
        sides, twin = _matched(baseline, candidate)
    found = estimates.verdict(sides[0], sides[1], paired, twin, looks)
    if found is None or found.word != "UNCLEAR":
        return found
    named = disturbers(baseline, candidate, *(o for o in others if o.name not in (baseline.name, candidate.name)))
    if not named:
        return found
    return replace(found, settle=f"{found.settle}; end what disturbed rounds: {named}")


def across(before: Manifest, after: Manifest, name: str) -> Verdict | None:
    """Variant ``name`` of two captures, which were not timed in the same rounds. None where one of them has no times of it."""
    one, other = before.variant(name), after.variant(name)
    if one is None or other is None:
        return None
    return verdict(one, other, max(before.looks, after.looks), paired=False)


def _matched(baseline: VariantRecord, candidate: VariantRecord) -> tuple[list[Rounds], Rounds | None]:
    """Both sides' rounds and the twin's, in the order of their numbers, where all of them have that round."""
    one, other = ({r.index: r.times_ns for r in side.used if r.times_ns} for side in (baseline, candidate))
    second = {r.index: r.times_ns for r in baseline.twin if r.used and r.times_ns}
    common = sorted(one.keys() & other.keys())
    twin = [second[i] for i in common] if second and all(i in second for i in common) else None
    return [[one[i] for i in common], [other[i] for i in common]], twin


def disturbers(*records: VariantRecord) -> str:
    """What disturbed how many turns of the rounds that do not count, the most frequent first; empty where nothing did."""
    rounds = [r for record in records for r in (*record.rounds, *record.twin)]
    counts = Counter(reason for r in rounds for reason in r.disturbed if not r.used)
    return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def left_out(*records: VariantRecord) -> int:
    """How many rounds do not count."""
    return len({r.index for record in records for r in (*record.rounds, *record.twin) if not r.used})
