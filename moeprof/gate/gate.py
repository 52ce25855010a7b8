"""A gate: rules judged on a variant of a capture against another capture or variant. Pure.

A rule names what must not be; ``judgement`` says how one is judged. docs/check.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from moeprof.compare.comparable import apart
from moeprof.errors import CaptureError, UsageError, WorkloadError
from moeprof.gate import metrics
from moeprof.gate.judge import Judgement, State, judge_change, judge_value, unclear
from moeprof.gate.rule import Of, Rule, rule
from moeprof.loaded.capture import Capture
from moeprof.notes import Note
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Interval, Verdict

EXACT = ("count", "fact")  # another machine or version leaves them comparable, and may be the finding itself
WORK = ("workload", "device", "parameter ")  # how what must not differ for them begins


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a capture, a variant of it, and how it is named in a report."""

    study: Capture
    variant: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """A rule judged. ``found`` is what is compared with ``threshold``, in ``of``: "x" ratio, "%" change, "+" change in the
    metric's ``unit``, "" the value itself. ``noise``: A against A, in the same terms, of clean times only."""

    rule: str
    metric: str
    state: State
    reason: str
    settle: str
    kind: metrics.Kind
    unit: str
    of: Of
    operator: str
    threshold: float
    before: float | None = None
    after: float | None = None
    found: Interval | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Check:
    """A gate judged: ``failed`` where a rule failed, or one is unclear and ``on_unclear`` says so."""

    capture: str
    workload: str
    variant: str
    against: str | None
    against_variant: str | None
    created: str
    git: str | None
    against_git: str | None
    on_unclear: Literal["pass", "fail"]
    failed: bool
    outcomes: tuple[Outcome, ...]
    unlike: tuple[Note, ...] = ()
    notes: tuple[Note, ...] = ()
    schema_version: int = 1

    def count(self, state: State) -> int:
        """How many rules ended so."""
        return sum(o.state == state for o in self.outcomes)

    def fails(self, outcome: Outcome) -> bool:
        """Whether this outcome fails the gate."""
        return outcome.state == "FAIL" or (outcome.state == "UNCLEAR" and self.on_unclear == "fail")


def rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Parse rules; raises UsageError, which names the rule, for a wrong one or a metric that is not there."""
    found = tuple(rule(text) for text in texts)
    if not found:
        raise UsageError("there is no rule", "give one: --fail-on 'step_time>3%'")
    for one in found:
        try:
            metrics.known(one.metric)
        except UsageError as error:
            raise UsageError(f"rule {one.text!r}: {error.message}", error.hint) from error
    return found


def usable(side: Side) -> None:
    """The capture is whole and the variant did its work.

    Raises:
        UsageError: the capture has no such variant.
        CaptureError: it is not complete.
        WorkloadError: its variant failed, or its output was wrong.
    """
    manifest = side.study.manifest
    record = manifest.variant(side.variant)
    if record is None:
        raise UsageError(
            f"{side.name} has no variant {side.variant!r}",
            f"its variants: {', '.join(v.name for v in manifest.variants)}",
        )
    if record.proof is not None and not record.proof.ok:
        raise WorkloadError(
            f"{side.name}: the output of {side.variant} is wrong: {record.proof.reason}",
            "a wrong variant has no time to judge",
        )
    if record.status == "failed":
        raise WorkloadError(f"{side.name}: {side.variant} failed: {record.reason}", "mend it and capture again")
    if not manifest.complete or record.status == "pending":
        raise CaptureError(f"{side.name} is not complete", "capture again")


def check(now: Side, base: Side | None, judged: Sequence[Rule], on_unclear: Literal["pass", "fail"]) -> Check:
    """Judge the rules on ``now`` against ``base``; two variants of one capture were timed in the same rounds.

    Raises:
        UsageError: a rule compares, and there is no ``base``.
        CaptureError, WorkloadError: a side is not usable.
    """
    needing = [r.text for r in judged if r.fails.unit]
    base = base if needing else None
    usable(now)
    if base is not None and base.study.variant(base.variant) is not None:  # of a new variant rules are unclear
        usable(base)
    if base is None and needing:
        raise UsageError(
            f"rule {needing[0]!r} compares, and there is nothing to compare {now.variant} with",
            "give --against CAPTURE",
        )
    differing = () if base is None else apart(base.study.manifest, now.study.manifest)
    outcomes = tuple(_outcome(r, now, base, differing) for r in judged)
    found = Check(
        capture=now.name, workload=now.study.manifest.name, variant=now.variant, against=None if base is None else base.name, against_variant=None if base is None else base.variant,
        created=now.study.manifest.created, git=now.study.manifest.git, against_git=None if base is None else base.study.manifest.git,
        on_unclear=on_unclear, failed=False, outcomes=outcomes, unlike=differing,
        notes=tuple(n for n in now.study.manifest.notes if n.severity != "info"),
    )  # fmt: skip
    return replace(found, failed=any(found.fails(o) for o in outcomes))


def _outcome(judged: Rule, now: Side, base: Side | None, differing: tuple[Note, ...]) -> Outcome:
    metric, wanted = judged.metric, judged.fails
    about = metrics.measure(metric)
    after = metrics.sample(now.study, now.variant, metric)
    old = None if base is None else base.study.variant(base.variant)
    before = None if base is None or old is None else metrics.sample(base.study, base.variant, metric)

    def outcome(judgement: Judgement) -> Outcome:
        return Outcome(
            rule=judged.text, metric=metric, kind=about.kind, unit=about.unit, of=wanted.unit,
            operator=wanted.operator, threshold=wanted.number, before=None if before is None else before.value,
            after=None if after is None else after.value, **vars(judgement),
        )  # fmt: skip

    if after is None:
        return outcome(unclear(_lacking(now, about), "a capture that holds it"))
    if not wanted.unit:
        return outcome(judge_value(wanted, after))
    assert base is not None
    if before is None:
        return outcome(unclear(_lacking(base, about), "a baseline that holds it"))
    named = [str(n.evidence["what"]) for n in differing]
    forbidding = [what for what in named if about.kind not in EXACT or what.startswith(WORK)]
    if forbidding:
        what = ", ".join(forbidding)
        reason = f"the captures are unlike ({what}): their numbers do not compare"
        return outcome(unclear(reason, "a baseline of the same kind"))
    verdict = _verdict(base, now) if after.rounds else None
    return outcome(judge_change(wanted, before, after, verdict))


def _verdict(base: Side, now: Side) -> Verdict | None:
    """That on the clean times: in the same rounds inside one capture, with its twins' noise; else of two processes."""
    if base.study is not now.study and base.variant == now.variant:
        return verdicts.across(base.study.manifest, now.study.manifest, now.variant)
    one, other = base.study.manifest.variant(base.variant), now.study.manifest.variant(now.variant)
    assert one is not None and other is not None  # each has a sample
    looks = max(base.study.manifest.looks, now.study.manifest.looks)
    return verdicts.verdict(one, other, looks, paired=base.study is now.study)


def _lacking(side: Side, about: metrics.Measure) -> str:
    """Why a side has no value of a metric."""
    record = side.study.manifest.variant(side.variant)
    if record is None:
        return f"unknown in {side.name}: it has no variant {side.variant!r}"
    skipped = f"SKIPPED: {record.reason}" if record.status == "skipped" else ""
    return f"unknown in {side.name}: {skipped or metrics.LACKS[about.kind]}"
