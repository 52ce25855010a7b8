"""How a rank failed: one type from the rank itself to the manifest, and which of several failures came first. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from moeprof.errors import ExitCode, MoeprofError, WorkloadError

# where a rank stands that waits for others: in a collective, for the GPU, or at the leader's barrier
WAITING = ("/torch/distributed/", "/torch/cuda/", "/moeprof/worker/channel.py")
DRAGGED = (-signal.SIGABRT, -signal.SIGTERM)  # NCCL's watchdog ends a process whose peer is gone


@dataclass(frozen=True)
class Failure:
    """A rank of ``ranks`` that raised an error, died without reporting one, hangs, or left no whole trace.

    ``how``: "exit status 5", "killed by SIGKILL", "at work.py:26". ``message``: its error, or the last line that it printed.
    ``at_s``: the time of day by the clock of rank 0's host. ``phase``: "in the proof". ``dragged``: its death may follow from
    another rank's. ``host`` is None where there is one host. ``others``: further ranks that hang.
    """

    rank: int
    kind: Literal["failed", "died", "hung", "untraced"]
    how: str = ""
    message: str = ""
    at_s: float = 0.0
    code: int = int(ExitCode.WORKLOAD)
    hint: str = ""
    dragged: bool = False
    phase: str = ""
    ranks: int = 0
    host: int | None = None
    others: tuple[int, ...] = ()

    @property
    def by_itself(self) -> bool:
        """Whether no other failure can be the cause. A rank that dies without a report is: all others report before their peers
        can notice."""
        return self.kind == "died" and not self.dragged

    @property
    def text(self) -> str:
        """One line that names the rank, its host, what happened and its last words."""
        names = ", ".join(str(rank) for rank in (self.rank, *self.others))
        who = f"rank {names} of {self.ranks}" + (f" (host {self.host})" if self.host is not None else "")
        if self.kind == "failed":
            return f"{who} failed {self.phase} ({self.how}): {self.message}"
        if self.kind == "died":
            return f"{who} died {self.phase} ({self.how}); it last printed: {self.message}"
        if self.kind == "hung":
            last = f"; it last printed: {self.message}" if self.message else ""
            return f"{who} gave no answer {self.phase} ({self.how}){last}"
        return f"{who} {self.message}"


class RankError(WorkloadError):
    """One of several ranks failed: ``failure`` says which and how. ``prefix`` begins the message."""

    def __init__(self, failure: Failure, prefix: str = "") -> None:
        super().__init__(prefix + failure.text, failure.hint)
        self.failure = failure


@dataclass(frozen=True)
class Position:
    """Where a rank stands that gave no answer in time: whether a signal stopped it, else the innermost line of its stack ("" if
    not known), and the last line that it printed."""

    rank: int
    stopped: bool = False
    at: str = ""
    message: str = ""

    @property
    def waits(self) -> bool:
        """Whether it stands where a rank waits for others."""
        return not self.stopped and any(part in self.at for part in WAITING)

    @property
    def how(self) -> str:
        """The same in words."""
        return "stopped by a signal" if self.stopped else f"at {self.at}" if self.at else "no stack could be read"


def how_it_ended(status: int) -> str:
    """``exit status 3``, or the signal's name."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def raised(rank: int, error: MoeprofError, at_s: float) -> Failure:
    """A rank in which an error was raised."""
    code = int(error.exit_code)
    return Failure(rank, "failed", f"exit status {code}", error.message, at_s, code, error.hint)


def death(rank: int, status: int, message: str, at_s: float) -> Failure:
    """A rank whose process ended with ``status`` and no report."""
    return Failure(rank, "died", how_it_ended(status), message, at_s, dragged=status in DRAGGED)


def first(failures: Iterable[Failure]) -> Failure:
    """The failure that came before the others: one that came by itself, else the earliest."""
    return min(failures, key=lambda failure: (not failure.by_itself, failure.at_s))


def hung(positions: Iterable[Position]) -> tuple[Position, ...]:
    """The ranks that others wait for: stopped ones, else those that do not wait themselves, else all."""
    late = tuple(positions)
    stopped = tuple(position for position in late if position.stopped)
    busy = tuple(position for position in late if not position.waits)
    return stopped or busy or late


def untraced(rank: int, ranks: int, host: int | None, message: str, hint: str) -> RankError:
    """A rank that ran and whose trace is not there or not whole."""
    return RankError(Failure(rank, "untraced", message=message, hint=hint, ranks=ranks, host=host))


def named(failure: Failure, ranks: int, host: int | None, phase: str) -> Failure:
    """The failure with what only the leader knows of it."""
    return replace(failure, ranks=ranks, host=host, phase=phase)
