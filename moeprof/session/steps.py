"""What ``moeprof session`` does: predict, try (capture and compare), keep or revert. Each step is an event of the session's log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from moeprof import resources
from moeprof.capture import Progress, Request, capture
from moeprof.compare import steps
from moeprof.compare.comparable import apart
from moeprof.compare.steps import Missing, SessionComparison, StepComparison
from moeprof.errors import CaptureError, MoeprofError, UsageError
from moeprof.gate import metrics
from moeprof.gate.rule import expectation
from moeprof.kernels.roofline import Ceiling, ceilings
from moeprof.loaded import capture as captures
from moeprof.loaded.capture import Capture
from moeprof.machine import git
from moeprof.session import log
from moeprof.session.log import MAX_DIFF, Decide, New, Predict, Session, Try
from moeprof.stats import verdict as verdicts
from moeprof.stats.verdict import Verdict
from moeprof.workload.find import load

FOLDER = Path("moeprof-session")
CAPTURES = "captures"
COMPARED = 12  # the last steps, whose captures a page compares: each is a trace to read

Sentence = Callable[[Verdict], str]


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def place(folder: Path, sample: str | None) -> Path:
    """The folder of a session: ``folder``, or the recorded session ``sample`` that ships with moeprof.

    Raises:
        UsageError: there is no such sample.
    """
    return folder if sample is None else resources.shipped("sessions", sample)


def begin(folder: Path, question: str, workload: str, variant: str | None) -> Session:
    """A new session.

    Raises:
        UsageError: ``folder`` contains one already, or there is no such workload or variant.
    """
    loaded = load(workload)
    chosen = loaded.variant(variant or loaded.optimized).name

    def event(session: Session | None) -> log.Event:
        if session is not None:
            raise UsageError(
                f"{folder} contains a session already: {session.start.question!r}", "choose another --session folder"
            )
        return New(question, workload, chosen, now())

    return log.append(folder, event)


def predict(folder: Path, text: str, metric: str, expect: str) -> Session:
    """Log a prediction for the next change. Raises UsageError for an unknown metric or a wrong expectation."""
    metrics.known(metric)
    expectation(expect)
    return _append(folder, Predict(text, metric, expect, now()))


def decide(folder: Path, kept: bool, why: str) -> Session:
    """Log whether the last change is kept or reverted."""
    return _append(folder, Decide(kept, why, now()))


def attempt(folder: Path, request: Request, progress: Progress, sentence: Sentence) -> Session:
    """Capture the workload as it is now, and log what it measures against the capture that is kept.

    ``sentence`` puts the verdict into words.

    Raises:
        UsageError: the session waits for another step.
        MoeprofError: the capture failed; the log does not change.
    """
    session = log.read(folder)
    waiting = session.open
    if session.base is not None and (waiting is None or waiting.trial is not None):
        raise UsageError("the session does not wait for a trial", log.expected(session))
    number = 0 if waiting is None else waiting.number
    target = folder / CAPTURES / f"step-{number:02d}"
    result = capture(replace(request, workload=session.start.workload, output=target, force=True), progress)
    if result.exit_code != 0:
        raise CaptureError(
            f"the capture of step {number} failed: {result.message}", "fix it and try again; the log did not change"
        )
    return _append(folder, Attempt(folder, session, captures.load(result.folder)).trial(sentence))


def _append(folder: Path, event: log.Event) -> Session:
    def checked(session: Session | None) -> log.Event:
        if session is None:
            raise log.no_session(folder)
        return event

    return log.append(folder, checked)


@dataclass(frozen=True)
class Attempt:
    """A finished capture of a session: what it measured, and the kept capture that it is compared with.

    Args:
        folder: of the session.
        session: as it was before the capture.
        capture: the new one.
    """

    folder: Path
    session: Session
    capture: Capture

    def trial(self, sentence: Sentence) -> Try:
        """The event of the log. The first trial of a session is its start, and is compared with nothing."""
        git, change = state_of_git(Path.cwd())
        trial = Try(str(self.capture.folder.relative_to(self.folder)), now(), git, change, self.values)
        if self.session.open is None:
            return trial
        prediction = self.session.open.prediction
        before, after = self.before(prediction.metric), self.values[prediction.metric]
        held = expectation(prediction.expect).holds(before, after)
        verdict = self.verdict
        return replace(
            trial,
            before=before,
            after=after,
            held=held,
            verdict="" if verdict is None else sentence(verdict),
            unlike=self.unlike,
        )

    @cached_property
    def values(self) -> dict[str, float | None]:
        """All named metrics, and the predicted one."""
        predicted = [self.session.open.prediction.metric] if self.session.open is not None else []
        return {name: self._value(self.capture, name) for name in dict.fromkeys([*metrics.NAMES, *predicted])}

    def before(self, metric: str) -> float | None:
        """The metric of what is kept: from its trial, or from its capture where the trial did not record it."""
        reference = self.session.reference
        if reference is None or metric in reference.values:
            return None if reference is None else reference.values[metric]
        return self._value(captures.load(self.folder / reference.capture), metric)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the clean times against the kept capture; None where one of the two has no times."""
        kept, variant = self._kept, self.session.start.variant
        return None if kept is None else verdicts.across(kept.manifest, self.capture.manifest, variant)

    @property
    def unlike(self) -> tuple[str, ...]:
        """What differs between the two captures besides the change."""
        kept = self._kept
        return () if kept is None else tuple(n.text for n in apart(kept.manifest, self.capture.manifest))

    @cached_property
    def _kept(self) -> Capture | None:
        """The kept capture without its traces; None at the start."""
        reference = self.session.reference
        return None if reference is None else captures.bare(self.folder / reference.capture)

    def _value(self, capture: Capture, metric: str) -> float | None:
        return metrics.value(capture, self.session.start.variant, metric)


def state_of_git(folder: Path) -> tuple[str | None, str]:
    """The commit of ``folder``, "+dirty" if it has changes, and these changes as a diff; (None, "") outside git."""
    commit, change = git.commit(folder), git.changes(folder)
    cut = change if len(change) <= MAX_DIFF else change[:MAX_DIFF] + f"\n[cut: {len(change)} characters in all]\n"
    return commit, cut


def seen(folder: Path, session: Session) -> SessionComparison:
    """The last steps compared, each with the kept one that it started from, as far as their captures can still be read."""
    tried = [s for s in session.steps if s.trial is not None]
    compared = {s.number for s in tried[-COMPARED:]}
    reference, against = session.base, 0
    loaded: dict[str, Capture | None] = {}
    comparisons: list[StepComparison] = []
    newest: tuple[Ceiling, ...] = ()
    for step in tried:
        assert step.trial is not None and reference is not None
        if step.number in compared:
            loaded = {name: loaded[name] for name in loaded if name == reference.capture}  # no more than two at once
            for trial in (reference, step.trial):
                if trial.capture not in loaded:
                    loaded[trial.capture] = _readable(folder / trial.capture)
            before, after = loaded[reference.capture], loaded[step.trial.capture]
            comparisons.append(_compared(session.start.variant, (step.number, against), before, after))
            newest = (() if after is None else ceilings(after)) or newest
        if step.decision is not None and step.decision.kept:
            reference, against = step.trial, step.number
    return SessionComparison(tuple(comparisons), newest, len(tried) - len(compared))


def _readable(folder: Path) -> Capture | None:
    """The capture with all its files read; None where it is gone or one cannot be read."""
    try:
        loaded = captures.load(folder)
        for variant in loaded.variants:
            _ = variant.trace, variant.counters
    except MoeprofError:
        return None
    return loaded


def _compared(variant: str, numbers: tuple[int, int], before: Capture | None, after: Capture | None) -> StepComparison:
    if before is None or after is None:
        return StepComparison(*numbers, missing=Missing("after" if after is None else "before", "capture"))
    return steps.compare(*numbers, before.variant(variant), after.variant(variant))
