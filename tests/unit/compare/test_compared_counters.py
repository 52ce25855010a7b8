"""Counters of both sides: means weighted by time, sums only of whole iterations, the row that changed most; table and page."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import counted_captures
from builders.sample_captures import recorded
from hypothesis import given
from hypothesis import strategies as st
from pages import printed, rendered

from moeprof.compare import variants
from moeprof.compare.counters import ALL, LONGEST, Counter, CounterComparison, compare, mean
from moeprof.loaded.capture import Capture
from moeprof.report import counters


@pytest.fixture(scope="module")
def story() -> Capture:
    return counted_captures.made(*counted_captures.story())


def row(comparison: CounterComparison | None, label: str, scope: str) -> Counter:
    assert comparison is not None
    (counter,) = [c for c in comparison.counters if (c.label, c.scope) == (label, scope)]
    return counter


def test_means_are_weighted_by_time_and_the_longest_kernel_stands_alone(story: Capture) -> None:
    counted = variants.compare(story).counted
    weighted = (400 * 0.31 + 120 * 0.12) / 520  # four of each
    assert row(counted, "L2 hit rate", ALL).before == pytest.approx(weighted) and row(
        counted, "L2 hit rate", ALL
    ).after == pytest.approx(0.71)
    assert row(counted, "L2 hit rate", LONGEST).before == pytest.approx(0.31)
    assert row(counted, "DRAM bytes", ALL).before == pytest.approx(5.2e9) and row(
        counted, "DRAM bytes", LONGEST
    ).before == pytest.approx(9e8)
    assert row(counted, "DRAM throughput", ALL).before == pytest.approx(5.2e9 / 2080e-6)
    assert row(counted, "registers per thread", ALL).before == pytest.approx((400 * 230 + 120 * 32) / 520)
    assert counted is not None and counted.coverage == ("8 of 8 kernels", "1 of 1 kernels")


def test_bytes_of_a_part_of_an_iteration_are_not_compared(story: Capture) -> None:
    few = recorded(story.variants[0], iterations=counted_captures.plain().variants[0].iterations)
    counted = compare(few, story.variants[2], ("baseline", "graph"))
    assert counted is not None and ("DRAM bytes", ALL) not in [(c.label, c.scope) for c in counted.counters]
    assert counted.coverage[0] == "8 of 96 kernels" and row(counted, "DRAM bytes", LONGEST).before == pytest.approx(9e8)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e6)), min_size=1, max_size=6))
def test_a_weighted_mean_lies_between_its_values(pairs: list[tuple[float, float]]) -> None:
    side = [{"gpu__time_duration.sum": time, "x": value} for value, time in pairs]
    weighted = mean(side, lambda v: v.get("x"))
    assert weighted is not None and min(v for v, _ in pairs) - 1e-9 <= weighted <= max(v for v, _ in pairs) + 1e-9
    assert weighted * sum(t for _, t in pairs) == pytest.approx(sum(v * t for v, t in pairs))
    assert mean([*side, {"gpu__time_duration.sum": 1.0}], lambda v: v.get("x")) is None, (
        "not known of one, not known of all"
    )


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["share", "bytes", "count"]))
def test_a_change_is_the_same_both_ways_and_never_beyond_one(a: float, b: float, kind: str) -> None:
    forward, backward = Counter(ALL, "x", kind, a, b), Counter(ALL, "x", kind, b, a)  # type: ignore[arg-type]
    assert forward.change == backward.change and forward.change is not None and 0 <= forward.change <= 1
    assert Counter(ALL, "x", "share", None, b).change is None


def test_the_row_that_changed_most_is_marked_and_named(story: Capture) -> None:
    comparison = variants.compare(story)
    assert (
        comparison.counted is not None and comparison.counted.most == 0
    )  # 5.2 GB to 0.88 GB: 83 % of it, more than any share moved
    table = counters.compared(comparison.counted)
    assert table.marked == 0 and table.rows[0] == (
        "DRAM bytes, counted kernels",
        "5.2 GB",
        "880.0 MB",
        "−83.1 % ◂ most",
    )
    assert ("tensor-pipe use, counted kernels", "16.2 %", "78.0 %", "+61.8 points") in table.rows
    page = rendered(story, comparison)
    assert "Counters: DRAM bytes of the counted kernels goes from 5.2 GB to 880.0 MB" in page
    assert page.count('<tr class="marked">') == 1 and page.index('id="counted"') < page.index('id="counters"')
    assert "−83.1 % ◂ most" in printed(story, comparison)


def test_counters_that_are_alike_are_called_so() -> None:
    comparison = variants.compare(counted_captures.plain())  # the same GEMM on both sides
    assert comparison.counted is not None and comparison.counted.moved is None
    assert (
        counters.title(comparison.counted) == "Counters of baseline and graph: much alike"
        and counters.compared(comparison.counted).marked is None
    )
    assert '<tr class="marked">' not in rendered(counted_captures.plain(), comparison)


def test_real_waits_of_an_h200(traces: Path) -> None:
    counted = variants.compare(counted_captures.real(traces)).counted
    assert row(counted, "tensor-pipe use", LONGEST).after == pytest.approx(0.95, abs=0.01)
    waits = [
        c for c in (counted.counters if counted else ()) if c.label.startswith("warps wait") and c.scope == LONGEST
    ]
    assert [c.label for c in waits] == ["warps wait: barrier", "warps wait: long_scoreboard", "warps wait: gmma"]
    assert all(c.before is not None and 0.1 < c.before < 0.4 for c in waits)


def test_without_counters_of_both_there_is_none(story: Capture) -> None:
    assert compare(story.variants[0], recorded(story.variants[2], counters=None), ("a", "b")) is None
    assert compare(None, story.variants[2], (None, "b")) is None
