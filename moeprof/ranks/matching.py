"""The same collective on every rank: matched by its order within kind, communicator and stream, never by time.

If the trace contains sequence numbers, they match. If counts differ, the order within those iterations matches in which the
counts agree. Sizes that differ and must be equal refuse the match. A collective that is not matched has a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.ranks.collective import ONE_SIZE
from moeprof.ranks.summary import Collectives, Key, RankFacts


@dataclass(frozen=True)
class Match:
    """Collectives of one key.

    Args:
        members: places in the list of ranks.
        counts: how many collectives each member has.
        rows: [members, matched], rows of each member's collectives.
        refused: why not all of them are matched; empty where they are.
    """

    key: Key
    members: tuple[int, ...]
    counts: tuple[int, ...]
    rows: Times
    refused: str
    group_size: int | None


def matches(ranks: Sequence[RankFacts]) -> tuple[Match, ...]:
    """One match for each key, in order of kind, group and lane."""
    rows_of: dict[Key, dict[int, Times]] = {}
    for place, rank in enumerate(ranks):
        for number, key in enumerate(rank.collectives.keys):
            rows_of.setdefault(key, {})[place] = np.flatnonzero(rank.collectives.key == number)
    ordered = sorted(rows_of, key=lambda k: (k.kind, k.group, k.lane))
    return tuple(_match(key, rows_of[key], ranks) for key in ordered)


def _match(key: Key, rows: dict[int, Times], ranks: Sequence[RankFacts]) -> Match:
    members = tuple(rows)
    sides = [ranks[m].collectives for m in members]
    counts = tuple(len(rows[m]) for m in members)
    size = max((int(side.group_size[rows[m]].max()) for m, side in zip(members, sides, strict=True)), default=-1)
    blank = Match(key, members, counts, np.empty((len(members), 0), np.int64), "", size if size > 0 else None)
    if len(members) < 2:
        return replace(blank, refused=f"only rank {ranks[members[0]].place.rank} has it")
    picked, refused = _picked(rows, sides), ""
    if picked is None:
        refused = _unequal(members, counts, ranks)
        picked = _by_iteration(rows, sides)
    unlike = _unlike_sizes(key, picked, sides)
    return replace(blank, refused=unlike) if unlike else replace(blank, rows=picked, refused=refused)


def _picked(rows: dict[int, Times], sides: list[Collectives]) -> Times | None:
    """By sequence number, else by order; None where the counts differ."""
    chosen = _by_sequence(rows, sides)
    if chosen is None and len({len(r) for r in rows.values()}) == 1:
        return np.stack(list(rows.values()))
    return chosen


def _by_sequence(rows: dict[int, Times], sides: list[Collectives]) -> Times | None:
    """Rows with the sequence numbers that all members have; None where a member has none, or has one twice."""
    numbers = [side.sequence[r] for r, side in zip(rows.values(), sides, strict=True)]
    if any(len(n) == 0 or (n < 0).any() or len(np.unique(n)) < len(n) for n in numbers):
        return None
    shared = numbers[0]
    for values in numbers[1:]:
        shared = np.intersect1d(shared, values)
    if not len(shared):
        return None
    orders = [np.argsort(n, kind="stable") for n in numbers]
    picks = [o[np.searchsorted(n[o], shared)] for n, o in zip(numbers, orders, strict=True)]
    return np.stack([r[pick] for r, pick in zip(rows.values(), picks, strict=True)])


def _by_iteration(rows: dict[int, Times], sides: list[Collectives]) -> Times:
    """Rows of the iterations in which every member has as many."""
    instances = [side.instance[r] for r, side in zip(rows.values(), sides, strict=True)]
    shared = set(instances[0][instances[0] >= 0].tolist()).intersection(
        *(set(values.tolist()) for values in instances[1:])
    )
    chosen = []
    for number in sorted(shared):
        inside = [r[values == number] for r, values in zip(rows.values(), instances, strict=True)]
        if len({len(m) for m in inside}) == 1:
            chosen.append(np.stack(inside))
    return np.concatenate(chosen, axis=1) if chosen else np.empty((len(rows), 0), dtype=np.int64)


def _unequal(members: tuple[int, ...], counts: tuple[int, ...], ranks: Sequence[RankFacts]) -> str:
    usual = int(np.median(counts))
    odd = [(ranks[m].place.rank, n) for m, n in zip(members, counts, strict=True) if n != usual]
    shown = ", ".join(f"rank {rank} has {n}" for rank, n in odd[:3])
    more = f" and {len(odd) - 3} more ranks differ" if len(odd) > 3 else ""
    return f"counts differ: {shown}{more}" + (f", the others {usual}" if len(odd) < len(counts) else "")


def _unlike_sizes(key: Key, rows: Times, sides: list[Collectives]) -> str:
    """The first place at which sizes that must be equal are not; "" where they are, or are not known."""
    if key.kind not in ONE_SIZE or not rows.size:
        return ""
    sizes = np.stack([side.bytes[r] for side, r in zip(sides, rows, strict=True)])
    unlike = (sizes != sizes[0]).any(axis=0) & (sizes > 0).all(axis=0)
    if not unlike.any():
        return ""
    at = int(unlike.argmax())
    return f"sizes differ: number {at + 1} is of {sizes[:, at].min()} to {sizes[:, at].max()} bytes"
