"""Hardware counters of two variants side by side: over the counted kernels, weighted by time, and for the longest kernel.

Shares and rates are means weighted by the kernels' durations under ncu; bytes are sums, and present only where every kernel of
the iteration was counted in both: the first few kernels of two variants need not do the same part of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moeprof.kernels.counters import DURATION, launches
from moeprof.kernels.memory_chart import dram_bytes
from moeprof.kernels.warp_states import RUNNING, shares
from moeprof.loaded.capture import CapturedVariant, representative
from moeprof.machine.ncu_metrics import TENSOR_PIPE

ALL, LONGEST = "counted kernels", "longest kernel"
STALLS = 3  # warp states that are reported
ALIKE = 0.05  # a smaller change is not reported: two counts of the same kernel differ by a few percent
Kind = Literal["bytes", "bytes_per_s", "share", "count"]
Values = dict[str, float]
# label, kind, what it is of one launch
SIMPLE: tuple[tuple[str, Kind, Callable[[Values], float | None]], ...] = (
    ("tensor-pipe use", "share", lambda v: _share(v, TENSOR_PIPE)),
    ("L2 hit rate", "share", lambda v: _share(v, "lts__t_sector_hit_rate.pct")),
    ("occupancy", "share", lambda v: _share(v, "sm__warps_active.avg.pct_of_peak_sustained_active")),
    ("registers per thread", "count", lambda v: v.get("launch__registers_per_thread")),
)


@dataclass(frozen=True)
class Counter:
    """One counter of both sides. ``scope``: ALL or LONGEST; a share is a ratio, bytes per second by ncu's own durations."""

    scope: str
    label: str
    kind: Kind
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """How far it moved, 0 to 1: a share by its difference, anything else against the larger of both."""
        if self.before is None or self.after is None:
            return None
        top = 1.0 if self.kind == "share" else max(abs(self.before), abs(self.after))
        return abs(self.after - self.before) / top if top else 0.0


@dataclass(frozen=True)
class CounterComparison:
    """The counters of two variants, the kernels that they rest on, and the row that changed most."""

    before: str
    after: str
    coverage: tuple[str, str] = ("", "")  # "3 of 96 kernels"
    longest: tuple[str, str] = ("", "")  # names
    counters: tuple[Counter, ...] = ()
    most: int | None = None

    @property
    def moved(self) -> Counter | None:
        """The row that changed most, if it changed by at least ALIKE."""
        row = None if self.most is None else self.counters[self.most]
        return row if row is not None and (row.change or 0.0) >= ALIKE else None


def compare(
    before: CapturedVariant | None, after: CapturedVariant | None, names: tuple[str | None, str | None]
) -> CounterComparison | None:
    """Both sides' counters under ``names``; None where a side has none."""
    sides = [
        [] if side is None else [v for v in launches(side.counters) if v[1].get(DURATION)] for side in (before, after)
    ]
    if before is None or after is None or not all(sides):
        return None
    longest = [max(side, key=lambda launch: launch[1][DURATION]) for side in sides]
    both_whole = all(_kernels(v) == len(side) for v, side in zip((before, after), sides, strict=True))
    rows = _rows(ALL, [[v for _, v in side] for side in sides], both_whole) + _rows(
        LONGEST, [[v] for _, v in longest], True
    )
    # one kernel of many that were not counted moves less than one that does it all: its bytes are shown, and no finding
    changes = [0.0 if row.kind == "bytes" and not both_whole else row.change or 0.0 for row in rows]
    covered = [f"{len(side)} of {_kernels(v) or '–'} kernels" for v, side in zip((before, after), sides, strict=True)]
    return CounterComparison(
        before=str(names[0]), after=str(names[1]), coverage=(covered[0], covered[1]), longest=(longest[0][0], longest[1][0]),
        counters=rows, most=changes.index(max(changes)) if any(changes) else None,
    )  # fmt: skip


def _kernels(variant: CapturedVariant) -> int | None:
    window = representative(variant)
    return None if window is None else window.launch.kernels


def _rows(scope: str, sides: list[list[Values]], sums: bool) -> tuple[Counter, ...]:
    """The counters of one scope; a row where at least one side has it."""
    pairs = [("DRAM bytes", "bytes", [_bytes(side) for side in sides])] if sums else []
    pairs.append(("DRAM throughput", "bytes_per_s", [_throughput(side) for side in sides]))
    pairs += [(label, kind, [mean(side, of) for side in sides]) for label, kind, of in SIMPLE]
    pairs += [
        (f"warps wait: {state}", "share", [_waits(side).get(state) for side in sides]) for state in _states(sides)
    ]
    return tuple(Counter(scope, label, kind, *pair) for label, kind, pair in pairs if any(v is not None for v in pair))  # type: ignore[arg-type]


def mean(side: list[Values], of: Callable[[Values], float | None]) -> float | None:
    """The mean of a value over launches, weighted by their durations; None where a launch lacks it."""
    pairs = [(of(values), values[DURATION]) for values in side]
    known = [(value, time) for value, time in pairs if value is not None]
    return sum(v * t for v, t in known) / sum(t for _, t in known) if len(known) == len(pairs) else None


def _share(values: Values, metric: str) -> float | None:
    return values[metric] / 100 if metric in values else None


def _bytes(side: list[Values]) -> float | None:
    moved = [dram_bytes(values) for values in side]
    return None if any(n is None for n in moved) else sum(n or 0.0 for n in moved)


def _throughput(side: list[Values]) -> float | None:
    total = _bytes(side)
    return None if total is None else total / sum(values[DURATION] for values in side) * 1e9


def _waits(side: list[Values]) -> dict[str, float]:
    """Shares of a warp's life, weighted by time; the states in which it could go on are left out."""
    times = [values[DURATION] for values in side]
    lives = [shares(values) for values in side]
    states = sorted({state for life in lives for state in life} - set(RUNNING))
    return {s: sum(life.get(s, 0.0) * t for life, t in zip(lives, times, strict=True)) / sum(times) for s in states}


def _states(sides: list[list[Values]]) -> list[str]:
    """The waits that matter most on either side."""
    waits = [_waits(side) for side in sides]
    if not all(waits):
        return []
    every = {state for side in waits for state in side}
    return sorted(every, key=lambda s: (-max(side.get(s, 0.0) for side in waits), s))[:STALLS]
