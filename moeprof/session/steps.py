"""What ``moeprof session`` does: predict, try (capture and compare), keep or revert; each step an event of the ledger."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from moeprof import resources
from moeprof.capture import Progress, Request, capture
from moeprof.compare import steps
from moeprof.compare.comparable import apart
from moeprof.compare.steps import Missing, SessionComparison, StepComparison
from moeprof.errors import CaptureError, MoeprofError, UsageError
from moeprof.gate import metrics as measures
from moeprof.gate.rule import expectation
from moeprof.kernels.roofline import Ceiling, ceilings
from moeprof.loaded import capture as study
from moeprof.loaded.capture import Capture
from moeprof.session import log
from moeprof.session.log import MAX_DIFF, Decide, New, Predict, Session, Try
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Verdict
from moeprof.storage import manifest
from moeprof.workload.find import load

FOLDER = Path("moeprof-session")
CAPTURES = "captures"
GIT_TIMEOUT_S = 20
COMPARED = 12  # steps, the last ones, whose captures a page compares: each is a trace to read


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def place(folder: Path, sample: str | None) -> Path:
    """Where a session lies: ``folder``, or the recorded one called ``sample`` that ships with moeprof.

    Raises:
        UsageError: there is no such sample.
    """
    return folder if sample is None else resources.shipped("sessions", sample)


def begin(folder: Path, question: str, workload: str, variant: str | None) -> Session:
    """A new session.

    Raises:
        UsageError: there is one in ``folder``, or no such workload or variant.
    """
    found = load(workload)
    chosen = found.variant(variant or found.optimized).name

    def event(session: Session | None) -> log.Event:
        if session is not None:
            raise UsageError(
                f"{folder} holds a session already: {session.start.question!r}", "choose another --session folder"
            )
        return New(question, workload, chosen, now())

    return log.append(folder, event)


def predict(folder: Path, text: str, metric: str, expect: str) -> Session:
    """A prediction for the next change; its metric and expectation are checked first."""
    measures.known(metric)
    expectation(expect)
    return log.append(folder, lambda session: _begun(folder, session, Predict(text, metric, expect, now())))


def decide(folder: Path, kept: bool, why: str) -> Session:
    """Keep or revert the last change."""
    return log.append(folder, lambda session: _begun(folder, session, Decide(kept, why, now())))


def _begun(folder: Path, session: Session | None, event: log.Event) -> log.Event:
    if session is None:
        raise CaptureError(f"{folder} holds no session", 'begin one: moeprof session new "QUESTION" --workload NAME')
    return event


def attempt(folder: Path, request: Request, progress: Progress, describe: Callable[[Verdict], str]) -> Session:
    """Capture the workload as it is now and measure it against what is kept; ``describe`` words the verdict for the log.

    Raises:
        UsageError: the session waits for something else.
        MoeprofError: the capture failed; nothing is written to the ledger then.
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
            f"the capture of step {number} failed: {result.message}", "mend it and try again; the ledger is as it was"
        )
    measured = _measured(session, result.folder, describe)
    kept = replace(measured, capture=str(result.folder.relative_to(folder)))
    return log.append(folder, lambda state: _begun(folder, state, kept))


def _measured(session: Session, capture_folder: Path, describe: Callable[[Verdict], str]) -> Try:
    """The trial of a finished capture."""
    found = study.load(capture_folder)
    waiting, name = session.open, session.start.variant
    metrics = [*measures.NAMES] + ([waiting.prediction.metric] if waiting is not None else [])
    values = {metric: measures.value(found, name, metric) for metric in dict.fromkeys(metrics)}
    git, change = state_of_git(Path.cwd())
    trial = Try("", now(), git, change, values)
    if waiting is None:
        return trial
    metric = waiting.prediction.metric
    before = _before(session, metric, capture_folder.parents[1])
    held = expectation(waiting.prediction.expect).holds(before, values[metric])
    trial = replace(trial, before=before, after=values[metric], held=held)
    if session.reference is None:
        return trial
    kept = manifest.read(capture_folder.parents[1] / session.reference.capture)
    verdict = verdicts.across(kept, found.manifest, name)
    unlike = tuple(n.text for n in apart(kept, found.manifest))
    return replace(trial, verdict="" if verdict is None else describe(verdict), unlike=unlike)


def _before(session: Session, metric: str, folder: Path) -> float | None:
    """The metric of what is kept so far: from its trial, or from its capture where no one asked for it then."""
    reference = session.reference
    if reference is None:
        return None
    if metric in reference.values:
        return reference.values[metric]
    return measures.value(study.load(folder / reference.capture), session.start.variant, metric)


def state_of_git(folder: Path) -> tuple[str | None, str]:
    """The commit that ``folder`` is at, "+dirty" where it has changes, and those changes as a diff; (None, "") outside of git."""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD").strip()
        change = _git(folder, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None, ""
    cut = change if len(change) <= MAX_DIFF else change[:MAX_DIFF] + f"\n[cut: {len(change)} characters in all]\n"
    return commit + ("+dirty" if change else ""), cut


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
    ).stdout


def seen(folder: Path, session: Session) -> SessionComparison:
    """What the captures that are still there show of the last steps, each against the kept one that it started from."""
    tried = [s for s in session.steps if s.trial is not None]
    wanted = {s.number for s in tried[-COMPARED:]}
    reference, at = session.base, 0
    known: dict[str, Capture | None] = {}
    found: list[tuple[StepComparison, tuple[Ceiling, ...]]] = []
    for step in tried:
        assert step.trial is not None and reference is not None
        if step.number in wanted:
            known = {key: one for key, one in known.items() if key == reference.capture}  # no more than two at once
            before, after = (_loaded(folder, trial.capture, known) for trial in (reference, step.trial))
            ours = _compared(session.start.variant, (step.number, at), before, after)
            found.append((ours, () if after is None else ceilings(after)))
        if step.decision is not None and step.decision.kept:
            reference, at = step.trial, step.number
    lines = next((some for _, some in reversed(found) if some), ())
    return SessionComparison(tuple(one for one, _ in found), lines, len(tried) - len(wanted))


def _loaded(folder: Path, capture: str, known: dict[str, Capture | None]) -> Capture | None:
    """The study of a capture, read once; None where it is gone or cannot be read."""
    if capture not in known:
        try:
            known[capture] = study.load(folder / capture)
        except MoeprofError:
            known[capture] = None
    return known[capture]


def _compared(variant: str, numbers: tuple[int, int], before: Capture | None, after: Capture | None) -> StepComparison:
    if before is None or after is None:
        return StepComparison(*numbers, missing=Missing("after" if after is None else "before", "capture"))
    return steps.compare(*numbers, before.variant(variant), after.variant(variant))
