"""How far one host's clock is ahead of another's, from messages that both time; and where a trace's zero lies. Pure.

An exchange is sent and returned by our clock, heard and answered by theirs. Both ways take some time, however unequal, so that ours is ahead
by sent - heard at least and by returned - answered at most. As NTP does (RFC 5905), the exchange with the least round trip counts,
whose interval is the narrowest: its middle, give or take half the round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Offset:
    """So many nanoseconds, and as many either way of it."""

    ns: int
    uncertainty_ns: int

    @property
    def least(self) -> int:
        """The lower end."""
        return self.ns - self.uncertainty_ns

    @property
    def most(self) -> int:
        """The upper end."""
        return self.ns + self.uncertainty_ns


@dataclass(frozen=True)
class Exchange:
    """One message there and back, in nanoseconds: ``sent`` and ``returned`` by our clock, the others by theirs."""

    sent: int
    heard: int
    answered: int
    returned: int

    @property
    def round_trip(self) -> int:
        """How long it was under way."""
        return (self.returned - self.sent) - (self.answered - self.heard)


def between(least: int, most: int) -> Offset:
    """The middle of an interval and half of it, rounded so that it holds both ends."""
    middle = (least + most) // 2
    return Offset(middle, max(most - middle, middle - least))


def ahead(exchanges: Iterable[Exchange]) -> Offset:
    """How far our clock is ahead of theirs, by the exchange with the least round trip."""
    best = min(exchanges, key=lambda exchange: exchange.round_trip)
    return between(best.sent - best.heard, best.returned - best.answered)


def throughout(before: Offset, after: Offset) -> Offset:
    """What holds from the one to the other, of a clock that drifts one way or not at all: the hull of both."""
    return between(min(before.least, after.least), max(before.most, after.most))


@dataclass(frozen=True)
class Anchor:
    """A moment that a trace has too: the host's clock was read ``before`` and ``after`` it, in nanoseconds since 1970."""

    before: int
    after: int


def zero(anchors: Sequence[tuple[Anchor, int]]) -> Offset | None:
    """Where a trace's zero lies by its host's clock, from anchors and the times that the trace gives them; None without any.

    The first and the last half are taken by themselves, since a trace's clock may run faster or slower than the host's.
    """
    middle = (len(anchors) + 1) // 2
    halves = [
        _common([(a.before - at, a.after - at) for a, at in half])
        for half in (anchors[:middle], anchors[middle:])
        if half
    ]
    return throughout(halves[0], halves[-1]) if halves else None


def _common(intervals: Sequence[tuple[int, int]]) -> Offset:
    """What all intervals have in common; where clocks are too coarse for that, the hull of the two that miss each other."""
    least, most = max(low for low, _ in intervals), min(high for _, high in intervals)
    return between(min(least, most), max(least, most))
