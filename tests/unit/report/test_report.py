"""The contrast and its page: sums, sentences, hostile names, same bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timelines
from builders.sample_captures import recorded
from click.testing import CliRunner
from fakes.command_line import moeprof
from pages import page as made
from pages import printed, rendered, told

from moeprof import resources
from moeprof.cli.main import cli
from moeprof.compare import variants
from moeprof.compare.variants import Comparison
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.units import short_kernel

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
HOSTILE = "evil<script>alert('x')</script><int, (char)38>&amp;\"'</script>"


def test_the_sample_is_whole_small_and_expected(sample: Capture, contrast: Comparison) -> None:
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*")) < 3_000_000
    assert sample.manifest.complete and sample.manifest.environment.nsys and sample.manifest.environment.ncu
    expected = json.loads((SAMPLE / "expected.json").read_text())
    assert json.loads(json.dumps(made(sample, contrast).data)) == expected, (
        "scripts/expect_sample.py writes expected.json anew"
    )


def test_the_sample_names_no_host_user_or_path() -> None:
    assert sum(path.is_file() for path in SAMPLE.rglob("*")) >= 8
    for path in SAMPLE.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not re.search(rb"/(home|root|work|tmp|Users)/|ENVIRONMENT_VARIABLE|LD_LIBRARY_PATH|SSH_", data), path


def test_the_identities_hold_in_every_window_of_the_sample(sample: Capture) -> None:
    windows = [w for v in sample.variants if v.iterations is not None for w in v.iterations.windows]
    assert len(windows) == 24
    for w in windows:
        assert sum(vars(w.ledger).values()) == w.span_ns and sum(vars(w.idle).values()) == w.ledger.idle_ns
        for c in w.copies:
            assert c.busy_ns == c.overlapped_ns + c.exposed_ns and sum(c.why_exposed.values()) == c.exposed_ns
        assert (w.launch.kernels, w.launch.joined) == (96, 96)
    graphs = sample.variant("graph")
    assert graphs is not None and graphs.iterations is not None
    assert all(
        w.launch.kernels_in_graphs == 96 and w.copies[0].overlapped_ns > 0.5 * w.copies[0].busy_ns
        for w in graphs.iterations.windows
    )


def test_the_waterfall_sums_exactly(contrast: Comparison) -> None:
    before, after = contrast.row("baseline"), contrast.row("graph")
    assert before is not None and after is not None
    assert sum(b.before_ns for b in contrast.waterfall) == before.traced_ns
    assert sum(b.after_ns for b in contrast.waterfall) == after.traced_ns
    assert all(b.delta_ns == b.after_ns - b.before_ns for b in contrast.waterfall)


def test_the_limit_and_the_efficiency_are_those_of_the_definition(contrast: Comparison) -> None:
    base, graph, limit = contrast.row("baseline"), contrast.row("graph"), contrast.limit
    assert base is not None and graph is not None and limit is not None and base.ledger is not None
    assert base.time_ns is not None and graph.time_ns is not None
    c, x = base.ledger.compute_ns / 32, sum(k.busy_ns for k in base.copies) / 32
    assert limit.ideal_ns == max(32 * c + x, c + 32 * x)
    assert graph.efficiency == (base.time_ns.value - graph.time_ns.value) / (base.time_ns.value - limit.ideal_ns)
    assert base.limit_ratio == limit.ideal_ns / base.time_ns.value


def test_every_number_of_the_sentences_stands_in_the_page(sample: Capture, contrast: Comparison) -> None:
    cells = rendered(sample, contrast).split('<section id="variants">')[1]
    table_part = re.sub(r"<ul class=\"reasons\">.*?</ul>", "", cells, flags=re.S)
    reasons = told(sample).reasons
    assert len(re.findall(r"\d+\.\d+(?= ms| %| GB/s)", " ".join(reasons))) >= 4
    for reason in reasons:
        for number in re.findall(r"\d+\.\d+(?= ms| %| GB/s)", reason):
            assert number in table_part, (number, reason)


def test_hostile_names_are_text_everywhere(sample: Capture) -> None:
    variant = sample.variants[0]
    assert variant.trace is not None and variant.iterations is not None
    ops = variant.trace.ops.assign(name=variant.trace.ops["name"].cat.rename_categories(lambda n: f"{HOSTILE}{n}"))
    kernels = tuple(replace(k, name=HOSTILE + k.name) for k in variant.iterations.kernels)
    evil = recorded(
        replace(variant, record=replace(variant.record, summary=HOSTILE)),
        trace=replace(variant.trace, ops=ops),
        iterations=replace(variant.iterations, kernels=kernels),
    )
    shown = rendered(replace(sample, variants=(evil, *sample.variants[1:])), variants.compare(sample))
    assert "<script>alert" not in shown and "evil&lt;script&gt;" in shown
    figures = re.findall(r'<figure class="timeline".*?</figure>', shown, flags=re.S)
    assert len(figures) == 3 and all("<" not in re.findall(r"json\">(.*?)</script>", f, flags=re.S)[0] for f in figures)
    assert any(HOSTILE in name for name in [*timelines.payload_of(figures[0])["full"].values()])


def test_the_page_is_the_same_twice_and_asks_for_nothing(sample: Capture, contrast: Comparison, page: Path) -> None:
    written = page.read_text(encoding="utf-8")
    assert rendered(capture.load(SAMPLE)) == written
    markup = re.sub(r"<script.*?</script>", "", written, flags=re.S)
    assert not re.search(r'(src|href)\s*=(?!"#)|https?://|@import|url\(', markup)
    assert "default-src 'none'" in markup and "showSendToCloud: false" in written


def test_a_variant_without_trace_or_times_is_shown_as_such(sample: Capture) -> None:
    bare = tuple(CapturedVariant(v.record) for v in sample.variants)
    skipped = replace(bare[2], record=replace(bare[2].record, status="skipped", reason="needs a GPU", rounds=()))
    lone = replace(sample, variants=(bare[0], bare[1], skipped))
    comparison = variants.compare(lone)
    assert comparison.optimized == "overlap" and not comparison.waterfall and comparison.limit is None
    assert "SKIPPED: needs a GPU" in rendered(lone, comparison) and "SKIPPED: needs a GPU" in printed(lone, comparison)
    nothing = replace(lone, variants=(replace(bare[0], record=replace(bare[0].record, rounds=())),))
    assert "Nothing was timed" in told(nothing).sentence and rendered(nothing)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nvjet_sm90_tst_192x128_64x5_1x2_h_bz_coopB_NNT", "nvjet_sm90_tst_192x128_64x5_1x2_h_bz_coopB_NNT"),
        (
            "void at::native::vectorized_elementwise_kernel<(int)8, at::x<a>::operator ()(int)>(int, T2)",
            "vectorized_elementwise_kernel",
        ),
        ("ampere_gemm<float>", "ampere_gemm"),
        ("", ""),
    ],
)
def test_short_kernel_names(name: str, short: str) -> None:
    assert short_kernel(name) == short


def without_torch(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a fresh interpreter."""
    code = "import runpy; runpy.run_module('moeprof', run_name='__main__')"
    block = "import sys; sys.modules['torch'] = None; "  # as where torch is not installed: its import fails
    return subprocess.run(
        [sys.executable, "-P", "-c", block + f"sys.argv = {['moeprof', *words]!r}; " + code],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_the_sample_is_shown_without_torch(tmp_path: Path) -> None:
    ran = without_torch("report", "--diff", "--sample", "kv_transfer", "-o", "page.html", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("FASTER  graph is") and ran.stdout.rstrip().endswith("Wrote page.html")
    assert "\x1b" not in ran.stdout, "no colour when piped"
    again = moeprof("report", "--diff", "--sample", "kv_transfer", "-o", "page.html", cwd=tmp_path)
    assert again.returncode == 2 and "page.html exists" in again.stderr
    single = moeprof("report", "--sample", "kv_transfer", "--json", cwd=tmp_path)
    assert json.loads(single.stdout)["page"] == "moeprof-out/kv_transfer.html"
    unknown = moeprof("report", "--sample", "nothing", cwd=tmp_path)
    assert (
        unknown.returncode == 2
        and "samples: decode_attention, decode_kernel, expert_parallel, kv_transfer, mla_decode, router"
        in unknown.stderr
    )
    empty = moeprof("report", cwd=tmp_path / "moeprof-out")
    assert empty.returncode == 1 and "there is no capture" in empty.stderr


def test_analyze_prints_and_gives_json(tmp_path: Path) -> None:
    trace = str(SAMPLE / "graph" / "trace.sqlite")
    shown = moeprof("analyze", trace, "--range", "iteration", cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.startswith("moeprof@iteration: 8 windows, 17.48 ms at the median.\n")
    assert "Who owned the time" in shown.stdout and "iteration 7" in shown.stdout
    printed = moeprof("analyze", trace, "--range", "moeprof@iteration", cwd=tmp_path).stdout
    assert printed.splitlines()[0] == shown.stdout.splitlines()[0] and "moeprof@iteration 7" in printed
    other = moeprof("analyze", trace, "--range", "other@iteration", cwd=tmp_path)
    assert other.returncode == 2 and "no range 'other@iteration'" in other.stderr
    report = json.loads(without_torch("analyze", trace, "--json", cwd=tmp_path).stdout)
    assert report["schema_version"] == 1 and report["source"]["kind"] == "nsys"
    (window,) = report["windows"]
    assert (
        sum(window["ledger"].values()) == window["span_ns"]
        and sum(window["idle"].values()) == window["ledger"]["idle_ns"]
    )
    assert set(run_keys(report)) >= {"windows", "kernels", "ranges", "findings", "notes"}
    analyses = json.loads(moeprof("analyze", str(SAMPLE), "--json", cwd=tmp_path).stdout)["variants"]
    assert list(analyses) == ["baseline", "overlap", "graph"]
    missing = moeprof("analyze", "nowhere.sqlite", cwd=tmp_path)
    assert missing.returncode == 1 and missing.stderr.startswith("error: there is no trace at nowhere.sqlite")


def run_keys(report: dict[str, object]) -> list[str]:
    return list(report)


def test_long_names_are_folded_and_sentences_read_from_the_left(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = CliRunner().invoke(cli, ["report", "--diff", "--sample", "expert_parallel", "-o", str(page)])
    assert ran.exit_code == 0, ran.output
    html = page.read_text(encoding="utf-8")
    folded = re.findall(r'<details class="name"><summary>(.*?)</summary>(.*?)</details>', html, flags=re.S)
    assert folded and all(len(short) <= 120 < len(whole) for short, whole in folded)
    assert any("GemmUniversal" in whole and "GemmUniversal" not in short for short, whole in folded)
    assert '<th scope="col" class="prose">what was checked</th>' in html and '<th scope="col">time</th>' in html
    assert "device_kernel (GemmUniversal)" in html
