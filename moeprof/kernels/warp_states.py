"""Why warps wait: ncu's warp-state counters of a variant's longest kernel, as shares of a warp's life, and what shrank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.machine.ncu_metrics import DURATION, WARP_STATE_PREFIX, WARP_STATE_SUFFIX

RUNNING = ("selected", "not_selected")  # states in which a warp could go on


@dataclass(frozen=True)
class Stalls:
    """The longest counted kernel of a variant and the share of a warp's life in each state; the shares sum to 1."""

    variant: str
    kernel: str
    shares: dict[str, float]


@dataclass(frozen=True)
class Step:
    """The wait that shrank most from one variant to the next."""

    before: str
    after: str
    state: str
    share_before: float
    share_after: float


def stalls(variant: CapturedVariant) -> Stalls | None:
    """The states of a variant's longest counted kernel; None where they were not counted."""
    frame = variant.counters
    if frame is None or not len(frame):
        return None
    durations = frame.loc[frame["metric"] == DURATION].set_index("launch")["value"]
    counted = frame.loc[frame["metric"].astype(str).str.startswith(WARP_STATE_PREFIX)]
    counted = counted.loc[counted["metric"].astype(str).str.endswith(WARP_STATE_SUFFIX)]
    if not len(durations) or not len(counted):
        return None
    longest = counted.loc[counted["launch"] == durations.idxmax()]
    by_state = shares(dict(zip(longest["metric"].astype(str), longest["value"].astype(float), strict=True)))
    return Stalls(variant.record.name, str(longest["kernel"].iloc[0]), by_state) if by_state else None


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """The share of a warp's life in each state, from one launch's values by metric; empty where none was counted."""
    states = cycles(values)
    total = sum(states.values())
    return {state: value / total for state, value in states.items()} if total else {}


def cycles(values: Mapping[str, float]) -> dict[str, float]:
    """The cycles that a warp is in each state between two of its instructions, of the states that were counted."""
    return {
        metric.removeprefix(WARP_STATE_PREFIX).removesuffix(WARP_STATE_SUFFIX): float(value)
        for metric, value in values.items()
        if metric.startswith(WARP_STATE_PREFIX) and metric.endswith(WARP_STATE_SUFFIX)
    }


def of_study(capture: Capture) -> tuple[Stalls, ...]:
    """The warp states of all variants that have them, in the capture's order."""
    return tuple(stalled for variant in capture.variants if (stalled := stalls(variant)) is not None)


def steps(stalled: tuple[Stalls, ...]) -> tuple[Step, ...]:
    """What shrank from each variant to the next; waits only, not the states in which a warp could go on."""
    return tuple(step for before, after in pairwise(stalled) if (step := _shrunk(before, after)) is not None)


def largest_fall(steps: tuple[Step, ...]) -> Step | None:
    """The step whose wait shrank most."""
    return max(steps, key=lambda step: step.share_before - step.share_after, default=None)


def _shrunk(before: Stalls, after: Stalls) -> Step | None:
    fallen = {
        state: share - after.shares.get(state, 0.0)
        for state, share in before.shares.items()
        if state not in RUNNING and share > after.shares.get(state, 0.0)
    }
    if not fallen:
        return None
    state = max(fallen, key=lambda name: fallen[name])
    return Step(before.variant, after.variant, state, before.shares[state], after.shares.get(state, 0.0))
