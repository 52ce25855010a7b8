"""The roofline of a capture and the figures of a step: numbers, words and page, on the sample with another model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders.sample_captures import recorded
from pages import printed, rendered

from moeprof import resources
from moeprof.compare import variants
from moeprof.kernels.roofline import roof
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture
from moeprof.report import tables
from moeprof.report.narrative import sentences

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
MODEL = {"kind": "roofline", "flops_ceiling": "gemm", "bytes_ceiling": "read", "yardstick": "bmm"}


@pytest.fixture(scope="module")
def plain() -> Capture:
    return capture.load(SAMPLE)


def changed(plain: Capture, ceilings: dict[str, float], flops: int, moved: int, **facts: object) -> Capture:
    variants = tuple(
        replace(v, record=replace(v.record, flops=flops, bytes_moved=moved, facts=facts)) for v in plain.variants
    )
    return replace(plain, manifest=replace(plain.manifest, limit=MODEL, ceilings=ceilings), variants=variants)


@pytest.mark.parametrize(
    ("flops", "moved", "bound", "ideal_ms"),
    [(4_000_000_000_000, 1_000_000_000, "FLOPs", 5.0), (1_000_000, 8_000_000_000, "bytes", 2.0)],
)
def test_the_limit_is_the_longer_of_both_times(
    plain: Capture, flops: int, moved: int, bound: str, ideal_ms: float
) -> None:
    found = variants.compare(changed(plain, {"gemm": 800.0, "read": 4000.0, "bmm": 600.0}, flops, moved))
    assert found.roof is not None and (found.roof.bound, found.roof.ideal_ns) == (bound, pytest.approx(ideal_ms * 1e6))
    row = found.row("graph")
    assert row is not None and row.work is not None and row.time_ns is not None
    assert row.work.tflop_per_s == pytest.approx(flops / row.time_ns.value / 1e3)
    assert row.work.gb_per_s == pytest.approx(moved / row.time_ns.value)
    assert row.work.yardstick_ratio == pytest.approx(row.work.tflop_per_s / 600)
    assert row.limit_ratio == pytest.approx(ideal_ms * 1e6 / row.time_ns.value)
    assert (
        row.work.kernels == 96 and 0 < row.work.counted < 96 and row.work.dram_bytes is None
    )  # a part says nothing of the whole


def test_the_bytes_of_ncu_stand_where_all_kernels_were_counted(plain: Capture) -> None:
    made = changed(plain, {"gemm": 800.0, "read": 4000.0}, 10**12, 10**9)
    graph = made.variant("graph")
    assert graph is not None and graph.counters is not None and graph.iterations is not None
    counted = int(graph.counters["launch"].nunique())
    windows = tuple(replace(w, launch=replace(w.launch, kernels=counted)) for w in graph.iterations.windows)
    whole = recorded(graph, iterations=replace(graph.iterations, windows=windows))
    row = variants.compare(replace(made, variants=(*made.variants[:2], whole))).row("graph")
    frame = graph.counters
    assert row is not None and row.work is not None
    assert row.work.dram_bytes == frame.loc[frame["metric"] == "dram__bytes.sum", "value"].sum()


def test_a_fraction_beyond_the_limit_is_refused_and_a_missing_ceiling_gives_none(plain: Capture) -> None:
    row = variants.compare(changed(plain, {"gemm": 1.0, "read": 4000.0}, 4 * 10**12, 10**9)).row("graph")
    assert row is not None and row.work is not None and row.limit_ratio is None and row.work.yardstick_ratio is None
    bare = changed(plain, {"gemm": 1.0}, 4 * 10**12, 10**9)
    assert variants.compare(bare).roof is None
    assert roof(plain.manifest, plain.variants[0].record) is None  # a pipeline has none


def test_figures_and_lists_of_a_step_are_shown(plain: Capture) -> None:
    made = changed(
        plain,
        {"gemm": 800.0, "read": 4000.0, "bmm": 600.0},
        4 * 10**12,
        10**9,
        **{"backend <i>": "flash", "dropped (%)": 1.25, "tokens <b>": (3.0, 1.0, 2.0)},
    )
    found = variants.compare(made)
    table = tables.own_figures(found)
    assert table.header == ("figure", "baseline", "overlap", "graph") and table.rows[-1] == (
        "dropped (%)",
        "1.25",
        "1.25",
        "1.25",
    )
    assert tables.work(variants.compare(plain)).rows == (), "columns that are empty for all are left out"
    page = rendered(made, found)
    assert "backend &lt;i&gt;" in page and "<td>flash</td>" in page
    assert '<section id="work">' in page and '<section id="series-0">' in page and "Tokens &lt;b&gt;" in page
    assert "800.0 TFLOP/s (gemm)" in page and "Yardstick: bmm 600.0" in page
    assert "1.25" in printed(made, found)
    assert (
        tables.limit(variants.compare(plain)).startswith("Limit: 32 stages")
        and tables.series(variants.compare(plain)) == {}
    )


def test_copies_that_take_no_time_are_not_told_and_have_no_link(plain: Capture) -> None:
    made = changed(plain, {"gemm": 800.0, "read": 4000.0}, 4 * 10**12, 10**9)
    found = variants.compare(made)
    assert any("of copies" in reason for reason in sentences.reasons(found))  # here they take half of an iteration
    assert '<section id="link">' not in rendered(made, found)
    short = tuple(replace(c, busy_ns=10) for c in (found.row("graph") or pytest.fail("none")).copies)
    row = replace(found.row("graph") or pytest.fail("none"), copies=short)
    told = sentences.reasons(replace(found, rows=(row,)))
    assert len(told) == 1 and "copies" not in told[0] and "link" not in told[0]
