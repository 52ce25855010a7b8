"""The numbers of many ranks, as dataclasses: exactly the JSON of ``moeprof ranks --json`` (docs/reference/ranks.md).

All times are int64 nanoseconds. What cannot be known is None, with the reason beside it or in the notes.
"""

from __future__ import annotations

from dataclasses import dataclass

from moeprof.analysis.model import Communication, Idle, Ledger
from moeprof.notes import Note

SCHEMA_VERSION = 1
# Why a rank arrives late: what it did between the end of the previous collective and the start of this one.
CAUSES = ("compute", "copy", "launch", "sync", "host", "dependency")
EARLIER = "left the one before late"
# The causes of a straggler's lateness (stragglers.py decides between them).
MORE_ROWS, MORE_WORK, LOWER_CLOCK, SLOWER = "more rows", "more work", "lower clock", "slower compute"
LATE_LAUNCH, COPIES, DEPENDENCY = "late launch", "copies", "dependency"


@dataclass(frozen=True)
class Place:
    """The rank of a trace.

    Args:
        derived: how the rank is known.
        host: a label.
        clock_offset_ns: to add to its host's clock, as the capture measured it.
        zero_utc_ns: the trace's own zero by that clock; both together are uncertain by ``clock_uncertainty_ns``.
        stray_kernels: of its process, on the GPUs of other ranks.
    """

    rank: int
    derived: str
    file: str
    device: int | None = None
    pid: int | None = None
    host: str | None = None
    world_size: int | None = None
    clock_offset_ns: int | None = None
    zero_utc_ns: int | None = None
    stray_kernels: int = 0
    clock_uncertainty_ns: int = 0


@dataclass(frozen=True)
class RankWindow:
    """One iteration (or range instance, or whole trace) of one rank, in its own clock.

    ``ledger`` sums to ``span_ns``, ``idle`` to its idle time. ``waiting_ns`` is the time in which collectives of this rank
    waited for the last rank to arrive, ``exposed_waiting_ns`` the part of it under which nothing computes, ``moving_ns``
    the rest of the matched collectives' time; None where no collective was matched.
    """

    range: str | None
    instance: int | None
    start_ns: int
    end_ns: int
    span_ns: int
    ledger: Ledger
    idle: Idle
    communication: tuple[Communication, ...]
    waiting_ns: int | None = None
    exposed_waiting_ns: int | None = None
    moving_ns: int | None = None


@dataclass(frozen=True)
class Slice:
    """One of equal parts of a rank's trace, as shares of it that sum to 1: ``moving`` and ``waiting`` are exposed."""

    busy_ratio: float
    moving_ratio: float
    waiting_ratio: float
    idle_ratio: float


@dataclass(frozen=True)
class Lateness:
    """How often a rank was the last of a collective to arrive, how far it came behind the middle rank in all (where it came
    behind), and what it did instead: ``because`` sums exactly to ``late_ns`` (its own time less the middle rank's).

    Over the same collectives: ``compute_ratio`` is its compute time over the middle ranks', ``work_ratio`` its thread blocks
    (kernel by kernel as launched) over theirs.
    """

    last: int
    of: int
    late_ns: int
    because: dict[str, int]
    compute_ratio: float | None = None
    work_ratio: float | None = None

    @property
    def cause(self) -> str | None:
        """The largest cause; None where it was never late."""
        largest = max(self.because.items(), key=lambda item: item[1], default=("", 0))
        return largest[0] if largest[1] > 0 else None


@dataclass(frozen=True)
class Straggler:
    """A rank that is late by more than chance, and the ``cause`` of most of it (``of_it_ns`` of ``late_ns``).

    The ratios are its evidence, each against the others: compute time and thread blocks, rows (of the ``load`` series of
    that name) and SM clock. None where it is not known.
    """

    rank: int
    late_ns: int
    last: int
    of: int
    cause: str
    of_it_ns: int
    compute_ratio: float | None = None
    work_ratio: float | None = None
    load: str | None = None
    load_ratio: float | None = None
    clock_ratio: float | None = None


@dataclass(frozen=True)
class Rank:
    """One rank: its place, its windows, and how it stands to the others.

    ``aligned_by_ns`` was added to its times to compare them with those of the first rank; ``residual_ns`` is the median
    distance of its collectives' ends from those of the group after that. ``slices`` only where there is one window.
    """

    place: Place
    windows: tuple[RankWindow, ...]
    kernels: int
    aligned_by_ns: int | None
    residual_ns: int | None
    lateness: Lateness | None
    slices: tuple[Slice, ...] = ()

    def total(self, part: str) -> int:
        """The sum over the windows of a field of the window, or of its ledger or idle split."""
        return sum(self._value(window, part) for window in self.windows)

    @staticmethod
    def _value(window: RankWindow, part: str) -> int:
        holder = next(h for h in (window, window.ledger, window.idle) if hasattr(h, part))
        return getattr(holder, part) or 0

    @property
    def waits_known(self) -> bool:
        """Whether any collective of the rank was matched."""
        return any(w.waiting_ns is not None for w in self.windows)


@dataclass(frozen=True)
class Arrival:
    """One collective, matched across its ranks."""

    index: int  # in the order of its ranks
    skew_ns: int  # from the first arrival to the last
    last_rank: int | None  # None where the skew is within the clocks' uncertainty
    late_ns: int  # of the last against the middle rank
    moving_ns: int  # from the last arrival to the last end
    together: bool  # whether there is a moment at which all ranks were in it
    bytes: int | None
    bus_gb_per_s: float | None


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind, process group and lane (the ordinal of the stream, where the group is not known).

    ``refused`` says why they were not (all) matched. ``bus_gb_per_s`` is the median bus bandwidth over the moving time,
    ``no_bandwidth`` why there is none; ``of_ceiling`` its share of the link's ceiling.
    """

    kind: str
    group: str
    lane: int
    ranks: tuple[int, ...]
    group_size: int | None
    least: int  # collectives of the rank that has fewest
    most: int
    matched: int
    coverage_ratio: float  # matched / all of these ranks' collectives
    refused: str
    bytes: int | None = None  # of the matched messages, each as its bandwidth counts it
    bus_gb_per_s: float | None = None
    bus_gb_per_s_max: float | None = None
    no_bandwidth: str = ""
    of_ceiling: float | None = None
    skew_median_ns: int | None = None
    skew_p90_ns: int | None = None
    skew_max_ns: int | None = None
    waiting_ns: int | None = None  # kernel time summed over ranks, before the last arrival
    moving_ns: int | None = None  # and after it
    exchange: bool = False  # sends and receives between more than two: an all-to-all
    arrivals: tuple[Arrival, ...] = ()


@dataclass(frozen=True)
class Clocks:
    """How times of different ranks were made comparable; ``residual_ns`` is the worst rank's, None where there is none.
    ``uncertainty_ns`` is what times of two ranks on different hosts may be off by at most, where the capture measured it."""

    method: str
    text: str
    residual_ns: int | None
    uncertainty_ns: int | None = None


@dataclass(frozen=True)
class Critical:
    """The rank that decides when an iteration ends. ``why``: "waited for", its late arrivals add up to most (``late_ns``,
    mostly by ``cause``); else "ends last" on the common clock; without one "longest"."""

    instance: int | None
    rank: int
    why: str
    late_ns: int | None
    cause: str | None
    span_ns: int  # its window


@dataclass(frozen=True)
class LoadSkew:
    """A series of loads (tokens of each expert) against compute time, rank by rank: does the load explain the time?"""

    name: str
    load: tuple[float, ...]
    load_max_over_mean: float
    compute_max_over_mean: float
    correlation: float | None  # of load and compute time over the ranks; None where either does not vary


@dataclass(frozen=True)
class GroupAnalysis:
    """All numbers of a group of ranks."""

    source: str
    ranks: tuple[Rank, ...]
    collectives: tuple[Collective, ...]
    clocks: Clocks
    critical: tuple[Critical, ...] = ()
    stragglers: tuple[Straggler, ...] = ()
    load: tuple[LoadSkew, ...] = ()
    notes: tuple[Note, ...] = ()
    link_ceiling_gb_per_s: float | None = None
    kind: str = "ranks"
    schema_version: int = SCHEMA_VERSION
    variant: str | None = None
    of_ranks: int | None = None  # the group's size, where it is known
    declared_bytes: int | None = None  # what a rank sends over the link in a window, as the workload declares
