"""A gate: the rules of ``moeprof check``, judged on a variant of a capture against another capture or variant.

Read from the top: a ``GateRequest`` names the captures and the rules; ``run`` loads two ``Side``s; ``check`` judges each rule
in one pass; a ``Check`` contains one ``Outcome`` a rule. A rule (``gate.rule``) names a metric and what must not be; the
metric's sample of each side (``gate.metrics``) is judged by ``gate.judge``. docs/reference/gate.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from moeprof.compare.comparable import apart
from moeprof.errors import CaptureError, UsageError, WorkloadError, choices
from moeprof.gate import metrics
from moeprof.gate.judge import Judgement, State, judge_change, judge_value, unclear
from moeprof.gate.metrics import Metric, Sample
from moeprof.gate.rule import Of, Rule, rule
from moeprof.loaded import capture as captures
from moeprof.loaded.capture import Capture
from moeprof.notes import Note
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Interval
from moeprof.stats.verdict import Verdict
from moeprof.storage import baselines
from moeprof.storage.manifest import VariantRecord

OnUnclear = Literal["pass", "fail"]
EXACT = (
    "count",
    "fact",
)  # kinds of metrics that another machine or version leaves comparable: it may be the finding itself
WORK = ("workload", "device", "parameter ")  # differences that forbid comparing these too: how their names begin


@dataclass(frozen=True)
class GateRequest:
    """The arguments of ``moeprof check``. ``against``: a baseline's name or a path; None: the default baseline, else the
    capture's own baseline variant."""

    capture: Path
    rules: tuple[str, ...]
    against: str | None = None
    variant: str | None = None
    on_unclear: OnUnclear = "pass"
    baselines: Path = baselines.FOLDER


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a capture, a variant of it, and its name in a report."""

    capture: Capture
    variant: str
    name: str

    @property
    def record(self) -> VariantRecord | None:
        """The variant's record; None where the capture has no such variant."""
        return self.capture.manifest.variant(self.variant)

    def sample(self, metric: str) -> Sample | None:
        """The metric of the variant; None where the capture does not contain it."""
        return None if self.record is None else metrics.sample(self.capture, self.variant, metric)


@dataclass(frozen=True)
class Outcome:
    """A rule judged.

    Args:
        before, after: the metric of each side, in ``unit``; None where it is not known.
        found: what is compared with ``threshold``. ``of`` says in which terms: "x" ratio, "%" change, "+" change in the
            metric's ``unit``, "" the value itself.
        noise: A/A noise in the same terms; of clean times only.
    """

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
    """A gate judged. ``failed``: a rule failed, or one is unclear and ``on_unclear`` is "fail". ``unlike``: what differs
    between the two captures."""

    capture: str
    workload: str
    variant: str
    against: str | None
    against_variant: str | None
    created: str
    git: str | None
    against_git: str | None
    on_unclear: OnUnclear
    failed: bool
    outcomes: tuple[Outcome, ...]
    unlike: tuple[Note, ...] = ()
    notes: tuple[Note, ...] = ()
    schema_version: int = 1

    def count(self, state: State) -> int:
        """How many rules have this state."""
        return sum(outcome.state == state for outcome in self.outcomes)

    def fails(self, outcome: Outcome) -> bool:
        """Whether this outcome fails the gate."""
        return outcome.state == "FAIL" or (outcome.state == "UNCLEAR" and self.on_unclear == "fail")


def run(request: GateRequest) -> Check:
    """Load the two sides and judge the rules.

    Raises:
        UsageError: a rule is wrong, there is no such variant, or nothing to compare with.
        CaptureError: a capture is missing or not complete.
        WorkloadError: a variant failed, or its output was wrong.
    """
    parsed = rules(request.rules)
    capture = captures.load(request.capture)
    now = Side(capture, request.variant or capture.manifest.chosen, str(request.capture))
    return check(now, _base(request, now), parsed, request.on_unclear)


def _base(request: GateRequest, now: Side) -> Side | None:
    """What ``now`` is compared with; None where there is nothing."""
    against = request.against or baselines.default(request.baselines)
    if against is not None:
        path, name = baselines.resolve(against, request.baselines)
        return Side(captures.load(path), now.variant, name)
    baseline = now.capture.manifest.baseline
    return None if baseline in (None, now.variant) else replace(now, variant=baseline)


def rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Parse rules; raises UsageError, which names the rule, for a wrong one or an unknown metric."""
    if not texts:
        raise UsageError("there is no rule", "give one: --fail-on 'step_time>3%'")
    parsed = tuple(rule(text) for text in texts)
    for one_rule in parsed:
        try:
            metrics.known(one_rule.metric)
        except UsageError as error:
            raise UsageError(f"rule {one_rule.text!r}: {error.message}", error.hint) from error
    return parsed


def check(now: Side, base: Side | None, rules: Sequence[Rule], on_unclear: OnUnclear) -> Check:
    """Judge the rules on ``now`` against ``base``. Two variants of one capture were timed in the same rounds.

    Raises:
        UsageError: a rule compares, and there is no ``base``.
        CaptureError, WorkloadError: a side is not usable.
    """
    comparing = [r.text for r in rules if r.fails.unit]
    base = base if comparing else None
    require_usable(now)
    if base is not None and base.record is not None:  # of a new variant the rules are unclear
        require_usable(base)
    if base is None and comparing:
        raise UsageError(
            f"rule {comparing[0]!r} compares, and there is nothing to compare {now.variant} with",
            "give --against CAPTURE",
        )
    manifest = now.capture.manifest
    differences = () if base is None else apart(base.capture.manifest, manifest)
    judged = Check(
        capture=now.name, workload=manifest.name, variant=now.variant, against=None if base is None else base.name,
        against_variant=None if base is None else base.variant, created=manifest.created, git=manifest.git,
        against_git=None if base is None else base.capture.manifest.git, on_unclear=on_unclear, failed=False,
        outcomes=tuple(_outcome(r, now, base, differences) for r in rules), unlike=differences,
        notes=tuple(n for n in manifest.notes if n.severity != "info"),
    )  # fmt: skip
    return replace(judged, failed=any(judged.fails(outcome) for outcome in judged.outcomes))


def require_usable(side: Side) -> None:
    """Refuse a capture that is not complete, and a variant that did not do its work.

    Raises:
        UsageError: the capture has no such variant.
        CaptureError: it is not complete.
        WorkloadError: its variant failed, or its output was wrong.
    """
    manifest, record = side.capture.manifest, side.record
    if record is None:
        raise UsageError(
            f"{side.name} has no variant {side.variant!r}",
            choices(str(side.variant), (v.name for v in manifest.variants), "its variants"),
        )
    if record.proof is not None and not record.proof.ok:
        raise WorkloadError(
            f"{side.name}: the output of {side.variant} is wrong: {record.proof.reason}",
            "a wrong variant has no time to judge",
        )
    if record.status == "failed":
        raise WorkloadError(f"{side.name}: {side.variant} failed: {record.reason}", "fix it and capture again")
    if not manifest.complete or record.status == "pending":
        raise CaptureError(f"{side.name} is not complete", "capture again")


def _outcome(rule: Rule, now: Side, base: Side | None, differences: tuple[Note, ...]) -> Outcome:
    """One rule: its metric on both sides, the judgement, and both together."""
    metric = metrics.metric(rule.metric)
    before, after = None if base is None else base.sample(rule.metric), now.sample(rule.metric)
    judgement = _judgement(rule, metric, (base, before), (now, after), differences)
    return Outcome(
        rule=rule.text, metric=rule.metric, kind=metric.kind, unit=metric.unit, of=rule.fails.unit,
        operator=rule.fails.operator, threshold=rule.fails.number, before=None if before is None else before.value,
        after=None if after is None else after.value, **vars(judgement),
    )  # fmt: skip


def _judgement(
    rule: Rule,
    metric: Metric,
    before: tuple[Side | None, Sample | None],
    after: tuple[Side, Sample | None],
    differences: tuple[Note, ...],
) -> Judgement:
    """UNCLEAR where a sample is missing or the captures do not compare; else by the samples, or by the verdict on clean times."""
    base, old = before
    now, new = after
    if new is None:
        return unclear(_why_unknown(now, metric), "a capture that holds it")
    if base is None or not rule.fails.unit:
        return judge_value(rule.fails, new)
    if old is None:
        return unclear(_why_unknown(base, metric), "a baseline that holds it")
    named = [str(difference.evidence["what"]) for difference in differences]
    forbidding = [what for what in named if metric.kind not in EXACT or what.startswith(WORK)]
    if forbidding:
        reason = f"the captures are unlike ({', '.join(forbidding)}): their numbers do not compare"
        return unclear(reason, "a baseline of the same kind")
    return judge_change(rule.fails, old, new, _verdict(base, now) if new.rounds else None)


def _verdict(base: Side, now: Side) -> Verdict | None:
    """The verdict on the clean times. Variants of one capture share their rounds and A/A noise; two captures do not."""
    before, after = base.record, now.record
    assert before is not None and after is not None  # each has a sample
    looks = max(base.capture.manifest.looks, now.capture.manifest.looks)
    return verdicts.verdict(before, after, looks, paired=base.capture is now.capture)


def _why_unknown(side: Side, metric: Metric) -> str:
    """Why a side has no value of a metric."""
    if side.record is None:
        return f"unknown in {side.name}: it has no variant {side.variant!r}"
    skipped = f"SKIPPED: {side.record.reason}" if side.record.status == "skipped" else ""
    return f"unknown in {side.name}: {skipped or metrics.LACKS[metric.kind]}"
