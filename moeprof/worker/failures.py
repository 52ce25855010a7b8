"""Which of several ranks failed first: one failure drags the others along. Pure; the leader gathers what it rests on."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from moeprof.errors import ExitCode

# where a rank stands that waits for others: in a collective, for the GPU, or at the leader's barrier
WAITING = ("/torch/distributed/", "/torch/cuda/", "/moeprof/channel.py")
DRAGGED = (-signal.SIGABRT, -signal.SIGTERM)  # NCCL's watchdog ends a process whose peer is gone


DOING = {
    "resolve": "calibration", "ceilings": "calibration", "prove": "the proof", "times": "a timed round", "warm": "warm-up",
    "measure": "the traced run",
}  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """How one rank failed. ``words``: of its error, or what it last said; ``silent``: it ended without a word of its own."""

    rank: int
    how: str  # "exit status 5", "killed by SIGKILL"
    words: str
    at_s: float
    code: int = ExitCode.WORKLOAD
    silent: bool = False
    dragged: bool = False  # its end may follow from another's
    hint: str = ""
    host: str = ""  # " (host 2)" where there are several


@dataclass(frozen=True)
class Late:
    """A rank that gave no answer in time: whether it is stopped, the innermost line of its stack ("" if not known)."""

    rank: int
    stopped: bool
    at: str
    words: str = ""
    host: str = ""

    @property
    def waits(self) -> bool:
        """Whether it stands where a rank waits for others."""
        return not self.stopped and any(part in self.at for part in WAITING)


def how_it_ended(status: int) -> str:
    """``exit status 3``, or the signal's name."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def by_itself(cause: Cause) -> bool:
    """Whether it follows from no other: a rank that died without a word did so by itself, as every other leaves word before
    its peers can notice."""
    return cause.silent and not cause.dragged


def first(causes: Iterable[Cause]) -> Cause:
    """The failure that came before the others: one that came by itself, else the earliest."""
    return min(causes, key=lambda c: (not by_itself(c), c.at_s))


def sentence(cause: Cause, ranks: int, doing: str, when: str = "in") -> str:
    """One line that names the rank, how it ended and its last words; ``doing`` is the leader's last request, and ``when`` is
    "after" where that had been answered."""
    where = f"{when} {DOING.get(doing, doing)}"
    who = f"rank {cause.rank} of {ranks}{cause.host}"
    if cause.silent:
        return f"{who} died {where} ({cause.how}); it last said: {cause.words}"
    return f"{who} failed {where} ({cause.how}): {cause.words}"


def late_ranks(found: Iterable[Late]) -> tuple[Late, ...]:
    """Those that others wait for: stopped ones, else those that do not wait themselves, else all."""
    late = tuple(found)
    stopped = tuple(one for one in late if one.stopped)
    busy = tuple(one for one in late if not one.waits)
    return stopped or busy or late


def late_sentence(late: tuple[Late, ...], ranks: int, doing: str, seconds: float) -> str:
    """One line that names the ranks that hang, where they stand and the last words of the first."""
    names, doing = ", ".join(str(one.rank) for one in late), DOING.get(doing, doing)
    one = late[0]
    where = "stopped by a signal" if one.stopped else f"at {one.at}" if one.at else "no stack could be read"
    said = f"; it last said: {one.words}" if one.words else ""
    hosts = "".join(dict.fromkeys(one.host for one in late))
    return f"rank {names} of {ranks}{hosts} gave no answer in {doing} within {seconds:.0f} s ({where}){said}"
