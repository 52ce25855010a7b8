"""Interval algebra against brute force: a set of nanoseconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.intervals import both, intersection, intersection_ns, minus, newly_covered, union

intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(-2, 10)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs], dtype=np.int64), np.array([b for _, b in pairs], dtype=np.int64)


def nanoseconds(pairs: list[tuple[int, int]]) -> set[int]:
    return {t for a, b in pairs for t in range(a, b)}


def of(u: object) -> set[int]:
    return nanoseconds(list(zip(u.starts, u.ends, strict=True)))  # type: ignore[attr-defined]


@given(intervals)
def test_union_covers_the_same_and_is_disjoint_and_sorted(pairs: list[tuple[int, int]]) -> None:
    found = union(*arrays(pairs))
    assert of(found) == nanoseconds(pairs)
    assert found.total_ns == len(nanoseconds(pairs))
    assert (found.starts[1:] > found.ends[:-1]).all() and (found.starts < found.ends).all()


@given(intervals, intervals)
def test_intersection_and_union_of_unions(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = union(*arrays(one)), union(*arrays(other))
    assert intersection_ns(a, b) == intersection_ns(b, a) == len(nanoseconds(one) & nanoseconds(other))
    assert of(both(a, b)) == nanoseconds(one) | nanoseconds(other)
    assert of(intersection(a, b)) == nanoseconds(one) & nanoseconds(other)
    assert of(minus(a, b)) == nanoseconds(one) - nanoseconds(other)


@given(intervals, st.integers(0, 50), st.integers(0, 50))
def test_clip_gaps_covered_and_contains(pairs: list[tuple[int, int]], a: int, b: int) -> None:
    low, high = sorted((a, b))
    found, inside = union(*arrays(pairs)), set(range(low, high))
    assert of(found.clip(low, high)) == nanoseconds(pairs) & inside
    assert of(found.gaps(low, high)) == inside - nanoseconds(pairs)
    assert found.covered(np.array([low]), np.array([high]))[0] == len(nanoseconds(pairs) & inside)
    times = np.arange(60)
    assert [bool(x) for x in found.contains(times)] == [t in nanoseconds(pairs) for t in range(60)]


@given(intervals)
def test_newly_covered_tiles_the_union(pairs: list[tuple[int, int]]) -> None:
    ordered = sorted((a, b) for a, b in pairs if b > a)
    left, right = newly_covered(*arrays(ordered))
    seen: set[int] = set()
    assert len(left) == len(right) == len(ordered)
    for (a, b), x, y in zip(ordered, left, right, strict=True):
        assert set(range(x, y)) == set(range(a, b)) - seen
        seen |= set(range(a, b))
