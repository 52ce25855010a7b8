"""The ranks of a run as a state machine: events in, actions out. It decides which rank failed first, which one hangs and when
a request has taken too long. Pure: the leader hands over what happens, with the time, and does what is returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from moeprof.errors import ExitCode
from moeprof.machine.launcher import Team
from moeprof.storage.files import of_rank
from moeprof.worker import failures
from moeprof.worker.failures import Failure, Position

SETTLE_S = 0.5  # after the first sign of a failure: for its cause to show
FAR_S = 5.0  # more, for that of a rank on another host
PHASES = {
    "resolve": "calibration", "ceilings": "calibration", "prove": "the proof", "times": "a timed round", "warm": "warm-up",
    "measure": "the traced run",
}  # fmt: skip


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """The leader sends a request of this name to every rank."""

    request: str


@dataclass(frozen=True)
class LeaderAnswered:
    """Rank 0's own part of the request is done."""


@dataclass(frozen=True)
class AllAnswered:
    """Every rank has answered."""


@dataclass(frozen=True)
class RunStarted:
    """From now on all requests together have the time limit, as a run under a profiler has."""


@dataclass(frozen=True)
class Failed:
    """A rank failed, as its parent, its host or the leader itself saw."""

    failure: Failure


@dataclass(frozen=True)
class Reports:
    """What the ranks themselves reported of their failures, all of it that there is now."""

    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Located:
    """Where the ranks stand that have not answered."""

    positions: tuple[Position, ...]


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


@dataclass(frozen=True)
class Closing:
    """The ranks are told to quit: their ends are no failures any more."""


Event = Asked | LeaderAnswered | AllAnswered | RunStarted | Failed | Reports | Located | Tick | Closing


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadReports:
    """Hand over what the ranks reported, as ``Reports``."""


@dataclass(frozen=True)
class Locate:
    """Find out where the ranks stand that have not answered, with ``leader`` rank 0 too, and hand it over as ``Located``."""

    leader: bool


@dataclass(frozen=True)
class End:
    """Report this failure and end every rank and the leader."""

    failure: Failure


Action = ReadReports | Locate | End


class RankGroup:
    """The state of one run: what is asked, until when, and what is known of failures. ``log`` is rank 0's; times in seconds."""

    def __init__(self, team: Team, timeout_s: float, log: Path) -> None:
        self.team, self.timeout_s, self.log = team, timeout_s, log
        self._state: Literal["running", "settling", "over"] = "running"
        self._phase = "in start"
        self._leader_answered = False
        self._wake_s: float | None = None  # when the next Tick is wanted
        self._run_until_s: float | None = None
        self._settled_s = 0.0  # from then on a failure that came by itself need not be waited for any more
        self._failures: dict[int, Failure] = {}

    @property
    def wake_s(self) -> float | None:
        """When a ``Tick`` is wanted; None if only an event matters."""
        return self._wake_s

    def handle(self, event: Event, now_s: float) -> Action | None:
        """Take one event, at ``now_s`` of a clock that never goes back; what is to be done now."""
        if self._state == "over":
            return None
        match event:
            case Asked(request):
                self._ask(request, now_s)
            case LeaderAnswered():
                self._leader_answered = True
            case AllAnswered():
                self._phase = self._phase.replace("in ", "after ", 1)
                self._wake_s = self._wake_s if self._state == "settling" else None
            case RunStarted():
                self._run_until_s = now_s + self.timeout_s
            case Failed(failure):
                self._fail((failure,), now_s)
            case Reports(reported):
                return self._reported(reported, now_s)
            case Located(positions):
                return self._end(self._hung(positions)) if positions else None
            case Tick():
                return self._tick(now_s)
            case Closing():
                self._state, self._wake_s = "over", None
        return None

    def _ask(self, request: str, now_s: float) -> None:
        self._phase, self._leader_answered = f"in {PHASES.get(request, request)}", False
        if self._state == "running":
            self._wake_s = now_s + self.timeout_s if self._run_until_s is None else self._run_until_s

    def _fail(self, failed: Iterable[Failure], now_s: float) -> None:
        """What a rank reports itself counts more than how its process ended."""
        for failure in failed:
            if failure.kind != "died" or failure.rank not in self._failures:
                self._failures[failure.rank] = failure
        if self._state == "running" and self._failures:
            self._state, self._wake_s = "settling", now_s + SETTLE_S
            self._settled_s = now_s + SETTLE_S + (FAR_S if len(self.team.layout) > 1 else 0)

    def _tick(self, now_s: float) -> Action | None:
        if self._wake_s is None or now_s < self._wake_s:
            return None
        if self._state == "settling":
            self._wake_s = now_s + SETTLE_S / 5
            return ReadReports()
        self._wake_s = None
        return Locate(not self._leader_answered)

    def _reported(self, reported: tuple[Failure, ...], now_s: float) -> Action | None:
        """Of several hosts a rank's death is reported over the network, later than its peers notice by their collectives: it is
        waited for as long as nothing but errors is known."""
        was = self._state
        self._fail(reported, now_s)
        known = self._failures.values()
        if was != "settling" or not (now_s >= self._settled_s or any(failure.by_itself for failure in known)):
            return None
        return self._end(failures.first(known))

    def _hung(self, positions: tuple[Position, ...]) -> Failure:
        late = failures.hung(positions)
        rank, *further = (position.rank for position in late)
        hint = f"allow more with --timeout, or read {self._shown(rank)}"
        failure = Failure(rank, "hung", late[0].how, late[0].message, hint=hint, others=tuple(further))
        self._phase += f" within {self.timeout_s:.0f} s"
        return failure

    def _end(self, failure: Failure) -> End:
        self._state, self._wake_s = "over", None
        hint = failure.hint or f"read {self._shown(failure.rank)}"
        failure = replace(failure, code=int(failure.code or ExitCode.WORKLOAD), hint=hint)
        return End(failures.named(failure, self.team.ranks, self.team.host_shown(failure.rank), self._phase))

    def _shown(self, rank: int) -> str:
        """A rank's log without the folder above, which takes another name when the capture is whole."""
        log = of_rank(self.log, rank)
        return f"{log.parent.name}/{log.name}"
