"""The log of an investigation: predictions, trials and decisions, one JSON object a line, appended and never rewritten.

A line is written whole under a lock of the file, so that two terminals take turns. A line that a crash cut short is ignored
when the file is read, and removed before the next one is written. The state of a session follows from its events alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moeprof.errors import CaptureError, UsageError
from moeprof.storage.files import locked
from moeprof.storage.json import decode, encode, loads

FILE = "ledger.jsonl"
MAX_DIFF = 65_536  # characters of a change that are saved


@dataclass(frozen=True)
class New:
    """A session begins: its question, workload and variant."""

    question: str
    workload: str
    variant: str
    at: str  # ISO 8601, UTC
    event: Literal["new"] = "new"


@dataclass(frozen=True)
class Predict:
    """What the next change is expected to do: a metric and an expectation such as "<0.5x"."""

    text: str
    metric: str
    expect: str
    at: str
    event: Literal["predict"] = "predict"


@dataclass(frozen=True)
class Try:
    """A capture of the state after a change.

    Args:
        values: metric -> value.
        before, after: the predicted metric of the kept capture and of this one.
        held: whether the prediction held; None for the first trial, which has none, and where it cannot be known.
        verdict: on the clean times against the kept capture, in words.
        unlike: what else differs between the two captures.
    """

    capture: str  # folder, relative to the session's
    at: str
    git: str | None
    change: str  # the diff of the working tree against the commit, cut at MAX_DIFF
    values: dict[str, float | None] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    held: bool | None = None
    verdict: str = ""
    unlike: tuple[str, ...] = ()
    event: Literal["try"] = "try"


@dataclass(frozen=True)
class Decide:
    """Whether the last change is kept."""

    kept: bool
    why: str
    at: str
    event: Literal["decide"] = "decide"


Event = New | Predict | Try | Decide
KINDS: dict[str, type[Event]] = {"new": New, "predict": Predict, "try": Try, "decide": Decide}


@dataclass(frozen=True)
class Step:
    """One prediction, its trial and the decision, as far as they went."""

    number: int
    prediction: Predict
    trial: Try | None = None
    decision: Decide | None = None


@dataclass(frozen=True)
class Session:
    """The state of a session; ``base`` is the trial before any prediction."""

    start: New
    base: Try | None = None
    steps: tuple[Step, ...] = ()

    @property
    def reference(self) -> Try | None:
        """The trial that the next one is compared with: the last kept one, or the base."""
        trials = [s.trial for s in self.steps if s.trial is not None and s.decision is not None and s.decision.kept]
        return trials[-1] if trials else self.base

    @property
    def judged(self) -> int:
        """How many predictions were held against a measurement."""
        return sum(s.trial is not None and s.trial.held is not None for s in self.steps)

    @property
    def held(self) -> int:
        """How many of them held."""
        return sum(bool(s.trial and s.trial.held) for s in self.steps)

    @property
    def open(self) -> Step | None:
        """The step that waits for its trial or its decision."""
        return self.steps[-1] if self.steps and self.steps[-1].decision is None else None


def read(folder: Path) -> Session:
    """The session in ``folder``.

    Raises:
        CaptureError: there is none, or a line of it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise no_session(folder)
    return replay(_events(path))


def no_session(folder: Path) -> CaptureError:
    """The error for a folder without a session."""
    return CaptureError(f"{folder} contains no session", 'begin one: moeprof session new "QUESTION" --workload NAME')


def _events(path: Path) -> list[Event]:
    events: list[Event] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was cut short
        try:
            data = loads(line)
            events.append(decode(KINDS[data["event"]], data))
        except (ValueError, KeyError, TypeError, CaptureError) as error:
            raise CaptureError(f"{path}, line {number}: {error}", "fix or remove that line") from error
    return events


def replay(events: list[Event]) -> Session:
    """The state after all events; raises CaptureError for an order that is not possible."""
    if not events or not isinstance(events[0], New):
        raise CaptureError("a session begins with an event 'new'", "begin another one")
    session = Session(events[0])
    for event in events[1:]:
        session = _after(session, event)
    return session


def _after(session: Session, event: Event) -> Session:
    last = session.open
    if isinstance(event, Try) and session.base is None:
        return Session(session.start, event)
    if isinstance(event, Predict) and last is None and session.base is not None:
        return Session(session.start, session.base, (*session.steps, Step(len(session.steps) + 1, event)))
    if isinstance(event, Try) and last is not None and last.trial is None:
        return _replaced(session, Step(last.number, last.prediction, event))
    if isinstance(event, Decide) and last is not None and last.trial is not None:
        return _replaced(session, Step(last.number, last.prediction, last.trial, event))
    raise CaptureError(f"a session cannot go on with {event.event!r} here", expected(session))


def _replaced(session: Session, step: Step) -> Session:
    return Session(session.start, session.base, (*session.steps[:-1], step))


def expected(session: Session) -> str:
    """The next step of a session, as a command."""
    if session.base is None:
        return "measure where you start: moeprof session try"
    if session.open is None:
        return "say what you expect: moeprof session predict"
    return (
        "make the change and measure it: moeprof session try"
        if session.open.trial is None
        else "decide: moeprof session keep, or revert"
    )


def append(folder: Path, make: Callable[[Session | None], Event]) -> Session:
    """Append the event that ``make`` returns for the state under the lock; returns the session after it.

    Raises:
        UsageError: the event does not follow from that state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / FILE) as file:
        whole = _cut_torn_line(folder / FILE, file)
        events = _events(folder / FILE) if whole else []
        event = make(replay(events) if events else None)
        try:
            session = replay([*events, event])
        except CaptureError as error:
            raise UsageError(error.message, error.hint) from error
        file.write(json.dumps(encode(event), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return session


def _cut_torn_line(path: Path, file: Any) -> int:
    """Remove what follows the last newline; returns the number of bytes left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        file.truncate(whole)
    file.seek(0, os.SEEK_END)
    return whole
