"""Points of the roofline: positions by hand and on a real H200, ceilings measured or by ncu, what is missing; the page in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from browser.chromium import Browser, overlapping
from builders import counted_captures
from builders.sample_captures import recorded
from pages import pair, printed, rendered

from moeprof.compare import captures, variants
from moeprof.kernels.roofline import Ceiling, ceilings
from moeprof.kernels.roofline_points import WHOLE, Roofline, roofline
from moeprof.loaded.capture import Capture
from moeprof.report import html
from moeprof.report.figures import roofline as drawn
from moeprof.report.figures.style import variant_colours


@pytest.fixture(scope="module")
def story() -> Capture:
    return counted_captures.made(*counted_captures.story())


def point(found: Roofline, variant: str, kernel: str) -> tuple[float, float, int, str]:
    (one,) = [p for p in found.of(variant) if kernel in p.kernel]
    return one.intensity, one.flop_per_s, one.launches, one.pipe


def test_positions_are_those_of_the_counters(story: Capture) -> None:
    found = roofline(story)
    # four launches of 60 GFLOP, 900 MB and 400 us each
    assert point(found, "baseline", "cutlass") == (
        pytest.approx(60e9 / 900e6),
        pytest.approx(60e9 / 400e-6),
        4,
        "tensor bf16",
    )
    # 4e8 fused multiply-adds are 8e8 FLOPs
    assert point(found, "baseline", "elementwise") == (pytest.approx(2.0), pytest.approx(8e8 / 120e-6), 4, "fp32")
    total, moved, time = 4 * 60e9 + 4 * 8e8, 4 * 1300e6, 4 * 520e-6
    assert point(found, "baseline", WHOLE) == (
        pytest.approx(total / moved),
        pytest.approx(total / time),
        8,
        "tensor bf16",
    )
    assert [p.kernel for p in found.of("graph")] == ["fused_moe_kernel", WHOLE] and found.missing == ()


def test_the_ceilings_of_the_capture_come_first_and_ncu_fills_in(story: Capture, traces: Path) -> None:
    assert ceilings(story) == (
        Ceiling("gemm_tflop_per_s", "FLOP/s", 700e12, True),
        Ceiling("read_gb_per_s", "byte/s", 4e12, True),
    )
    real = counted_captures.real(traces)
    found = {c.name: c for c in ceilings(real)}
    assert set(found) == {"tensor pipe", "fp32 pipe", "DRAM"} and not any(c.measured for c in found.values())
    frame = real.variants[0].counters
    assert frame is not None
    value = frame[frame["launch"] == 0].set_index("metric")["value"]
    by_share = (
        value["dram__bytes_read.sum.per_second"] / value["dram__bytes_read.sum.pct_of_peak_sustained_elapsed"] * 100
    )
    assert found["DRAM"].per_s == pytest.approx(by_share, rel=1e-3)
    dense = value["sm__ops_path_tensor_op_hgmma_src_bf16_dst_fp32_sparsity_off.sum.peak_sustained_elapsed.per_second"]
    assert found["tensor pipe"].per_s == pytest.approx(dense, rel=0.01), "not twice that, as with sparsity"
    both = replace(real, manifest=story.manifest)
    assert [c.measured for c in ceilings(both)] == [True, True], "a peak by ncu stands only where nothing was measured"
    half = replace(story, manifest=replace(story.manifest, ceilings={"gemm_tflop_per_s": 700.0}))
    assert roofline(half).missing[0] == "no ceiling of device memory"
    figure = drawn.figure(roofline(half), None, None, variant_colours(["baseline", "overlap", "graph"], None))
    assert figure is not None and [t.name for t in figure.data if t.mode == "lines"] == [
        "gemm_tflop_per_s 700.0 TFLOP/s, measured"
    ]


def test_a_real_gemm_stands_where_its_size_says(traces: Path) -> None:
    found = roofline(counted_captures.real(traces))
    x, y, launches, pipe = point(found, "graph", "nvjet")
    assert (launches, pipe) == (5, "tensor bf16") and y == pytest.approx(785e12, rel=0.01)
    least = 3 * 2 * 4096**2  # three matrices of two bytes, each moved once
    assert x < 2 * 4096**3 / least and x == pytest.approx(2 * 4096**3 / 176e6, rel=0.01)


def test_a_part_of_an_iteration_has_no_whole_and_says_so(story: Capture) -> None:
    few = recorded(story.variants[0], iterations=counted_captures.plain().variants[0].iterations)
    found = roofline(replace(story, variants=(few, *story.variants[1:])))
    assert WHOLE not in [p.kernel for p in found.of("baseline")] and found.of("baseline")
    assert found.missing == (
        "baseline: 8 of 96 kernels were counted, so its whole iteration has no point (--ncu-kernels 96 counts all)",
    )


def test_without_counted_flops_the_whole_stands_by_the_declared_ones(story: Capture) -> None:
    frame = story.variants[2].counters
    assert frame is not None
    bare = counted_captures.whole(story.variants[2], frame[~frame["metric"].str.contains("sass_thread|ops_path")])
    found = roofline(replace(story, variants=(*story.variants[:2], bare)))
    assert [(p.kernel, p.pipe, p.flops) for p in found.of("graph")] == [(WHOLE, "declared", 2e12)]
    assert (
        any(text.startswith("graph: ncu did not count") for text in found.missing)
        and "moeprof capture kv_transfer --tools nsys,ncu" in found.missing[-1]
    )
    page = rendered(
        replace(story, variants=(*story.variants[:2], bare)),
        variants.compare(replace(story, variants=(*story.variants[:2], bare))),
    )
    assert (
        "<td>declared</td>" in page and escape(f"Not in this capture: {' '.join(found.missing)}", quote=False) in page
    )


def test_without_counters_or_a_gpu_there_is_a_reason_or_nothing() -> None:
    plain = counted_captures.plain()
    found = variants.compare(plain)
    assert not found.roofline.points and "baseline, overlap, graph: ncu did not count" in found.roofline.missing[0]
    page = rendered(plain, found)
    assert escape(f"Not in this capture: {found.roofline.missing[0]}", quote=False) in page
    assert 'id="figure-roofline"' not in page and '<section id="roofline"' not in page
    none = replace(plain, variants=tuple(recorded(v, counters=None) for v in plain.variants))
    assert roofline(none).missing[0] == "baseline, overlap, graph: no kernel was counted"
    cpu = replace(none, manifest=replace(none.manifest, device="cpu"))
    assert roofline(cpu) == Roofline() and '<section id="roofline">' not in rendered(cpu)


def test_arrows_lead_from_the_baseline_to_the_optimized_variant(story: Capture) -> None:
    found = variants.compare(story).roofline
    figure = drawn.figure(found, "baseline", "graph", variant_colours(["baseline", "overlap", "graph"], "baseline"))
    assert figure is not None
    arrows = [(10**a.ax, 10**a.ay, 10**a.x, 10**a.y) for a in figure.layout.annotations]
    first, last = found.of("baseline"), found.of("graph")
    expected = [
        (a.intensity, a.flop_per_s, b.intensity, b.flop_per_s) for a, b in ((first[0], last[0]), (first[-1], last[-1]))
    ]
    assert [pytest.approx(e, rel=1e-3) for e in expected] == arrows
    roofs = [t for t in figure.data if t.mode == "lines"]
    assert [t.name for t in roofs] == [
        "read_gb_per_s 4000.0 GB/s, measured",
        "gemm_tflop_per_s 700.0 TFLOP/s, measured",
    ]
    assert roofs[0].x[1] == roofs[1].x[0] == pytest.approx(175.0) and roofs[0].y[1] == pytest.approx(
        700e12
    )  # they meet at the ridge
    assert "Points of the roofline" in printed(story)


def test_two_captures_stand_under_the_roofs_of_the_second(story: Capture) -> None:
    found = captures.compare(counted_captures.made(*counted_captures.story(), measured=False), story)
    assert {p.variant for p in found.roofline.points} == {"A: graph", "B: graph"} and all(
        c.measured for c in found.roofline.ceilings
    )
    other = replace(
        story, manifest=replace(story.manifest, ceilings={"gemm_tflop_per_s": 650.0, "read_gb_per_s": 3900.0})
    )
    assert [c.per_s for c in captures.compare(other, story).roofline.ceilings] == [700e12, 4e12]
    assert 'id="figure-roofline"' in html.render(pair(story, story))


TEXTS = """[...document.querySelectorAll('#figure-roofline .legendtext, #figure-roofline .xtick text, #figure-roofline .ytick text,' +
 '#figure-roofline .textpoint text, #figure-roofline .g-xtitle text, #figure-roofline .g-ytitle text')].filter(t => t.textContent.trim())
 .map(t => {const r = t.getBoundingClientRect(); return [t.textContent, r.left, r.top, r.right, r.bottom]})"""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_roofline_in_a_browser(browser: Browser, story: Capture, tmp_path: Path, width: int, dark: bool) -> None:
    page = tmp_path / "page.html"
    page.write_text(rendered(story), encoding="utf-8")
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("document.querySelectorAll('#figure-roofline .scatterlayer .point').length") == len(
        variants.compare(story).roofline.points
    )
    assert browser.evaluate("document.querySelectorAll('#figure-roofline .annotation-arrow-g').length") == 2
    inside = "(() => {const p = document.querySelector('#figure-roofline .xy .gridlayer, #figure-roofline .plot').getBoundingClientRect();"
    inside += "return [...document.querySelectorAll('#figure-roofline .annotation-arrow-g')].every(a => {const r = a.getBoundingClientRect();"
    inside += "return r.width > 10 && r.left >= p.left - 20 && r.right <= p.right + 20})})()"
    assert browser.evaluate(inside), "arrows lie in the plot"
    assert overlapping(browser.evaluate(TEXTS)) == []
    browser.evaluate("document.querySelector('#words details').open = true")
    assert browser.evaluate("document.querySelector('#words p').innerText.length") > 200
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.requests() == [] and browser.complaints() == []


def test_hostile_kernel_names_are_text(story: Capture) -> None:
    evil = "void evil<script>alert('x')</script>"
    table = counted_captures.frame([counted_captures.launch(evil, 100, 50, 5)])
    study = replace(story, variants=(counted_captures.whole(story.variants[0], table), *story.variants[1:]))
    page = rendered(study)
    data = re.search(r'id="data-roofline">(.*?)</script>', page, flags=re.S)
    assert "<script>alert" not in page and data is not None and json.loads(data.group(1))
    assert rendered(study) == page
