"""The walk from one ledger to another, category by category, idle time by its cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.analysis.model import Idle, Ledger

# field of Ledger or Idle -> its label, in the ledger's order
CATEGORIES = {
    "compute_ns": "compute", "exposed_comm_ns": "exposed communication", "exposed_copy_ns": "exposed copy",
    "exposed_migration_ns": "exposed migration", "exposed_memset_ns": "exposed memset", "launch_ns": "idle: launch",
    "sync_ns": "idle: sync", "host_ns": "idle: host", "dependency_ns": "idle: dependency", "edge_ns": "idle: edge",
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """One step of the waterfall; delta_ns = after_ns - before_ns."""

    label: str
    before_ns: int
    after_ns: int
    delta_ns: int


def parts(ledger: Ledger, idle: Idle) -> dict[str, int]:
    """Nanoseconds by category; they sum to the window's span."""
    return {key: getattr(ledger if hasattr(ledger, key) else idle, key) for key in CATEGORIES}


def bars(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[Bar, ...]:
    """The steps of the categories that either side has."""
    return tuple(
        Bar(label, before[key], after[key], after[key] - before[key])
        for key, label in CATEGORIES.items()
        if before[key] or after[key]
    )
