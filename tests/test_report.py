"""The contrast and its page: sums, sentences, hostile names, same bytes, and the page in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import recordings
from cdp import CHROMIUM, Browser

from moeprof import diff, measures, reporting, resources, study
from moeprof.codec import encode
from moeprof.contrast import contrast as compare
from moeprof.diff import Diff
from moeprof.manifest import VariantRecord
from moeprof.report import html, text, timed
from moeprof.report import traces as trace_pages
from moeprof.report.format import short_kernel
from moeprof.study import Study

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
HOSTILE = "evil<script>alert('x')</script><int, (char)38>&amp;\"'</script>"


@pytest.fixture(scope="module")
def sample() -> Study:
    return study.load(SAMPLE)


@pytest.fixture(scope="module")
def contrast(sample: Study) -> Diff:
    return diff.contrast(sample)


@pytest.fixture(scope="module")
def page(sample: Study, contrast: Diff, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html.render(sample, contrast), encoding="utf-8")
    return path


def test_the_sample_is_whole_small_and_expected(sample: Study, contrast: Diff) -> None:
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*")) < 3_000_000
    assert sample.manifest.complete and sample.manifest.environment.nsys and sample.manifest.environment.ncu
    expected = json.loads((SAMPLE / "expected.json").read_text())
    assert json.loads(json.dumps(encode(contrast))) == expected, "scripts/expect_sample.py writes expected.json anew"


def test_the_sample_names_no_host_user_or_path() -> None:
    for path in SAMPLE.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not re.search(rb"/(home|root|work|tmp|Users)/|ENVIRONMENT_VARIABLE|LD_LIBRARY_PATH|SSH_", data), path


def test_the_identities_hold_in_every_window_of_the_sample(sample: Study) -> None:
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


def test_the_waterfall_sums_exactly(contrast: Diff) -> None:
    before, after = contrast.row("baseline"), contrast.row("graph")
    assert before is not None and after is not None
    assert sum(b.before_ns for b in contrast.waterfall) == before.traced_ns
    assert sum(b.after_ns for b in contrast.waterfall) == after.traced_ns
    assert all(b.delta_ns == b.after_ns - b.before_ns for b in contrast.waterfall)


def test_the_limit_and_the_efficiency_are_those_of_the_definition(contrast: Diff) -> None:
    base, graph, limit = contrast.row("baseline"), contrast.row("graph"), contrast.limit
    assert base is not None and graph is not None and limit is not None and base.ledger is not None
    assert base.time_ns is not None and graph.time_ns is not None
    c, x = base.ledger.compute_ns / 32, sum(k.busy_ns for k in base.copies) / 32
    assert limit.ideal_ns == max(32 * c + x, c + 32 * x)
    assert graph.efficiency == (base.time_ns.value - graph.time_ns.value) / (base.time_ns.value - limit.ideal_ns)
    assert base.limit_ratio == limit.ideal_ns / base.time_ns.value


def test_every_number_of_the_sentences_stands_in_the_page(sample: Study, contrast: Diff) -> None:
    cells = html.render(sample, contrast).split('<section id="variants">')[1]
    table_part = re.sub(r"<ul class=\"reasons\">.*?</ul>", "", cells, flags=re.S)
    for reason in contrast.reasons:
        for number in re.findall(r"\d+\.\d+(?= ms| %| GB/s)", reason):
            assert number in table_part, (number, reason)


def test_two_captures_are_contrasted_and_unlike_ones_flagged(sample: Study) -> None:
    other = replace(sample, manifest=replace(sample.manifest, params={**sample.manifest.params, "tokens": 1}))
    found = diff.contrast_captures(sample, other)
    assert [(n.evidence["what"], n.evidence["after"]) for n in found.unlike] == [("parameter tokens", "1")]
    assert (found.baseline, found.optimized) == ("A: graph", "B: graph")
    row = found.row("B: graph")
    assert row is not None and row.verdict is not None and row.verdict.word == "SAME"
    own = diff.contrast(sample).row("graph")
    assert own is not None and (row.efficiency, row.compute_ratio) == (own.efficiency, own.compute_ratio)
    assert sum(b.delta_ns for b in found.waterfall) == 0
    shown = html.render_pair(sample, other, found)
    body = shown[shown.index("<main>") :]
    assert "These two captures are unlike" in body
    assert body.index("the two captures differ in parameter tokens") < body.index("17.43"), "before any number"
    said = text.diff_text(found)
    assert said.index("differ in parameter tokens") < said.index("17.43")
    data = json.dumps(encode(found))
    assert data.index("differ in parameter tokens") < data.index('"time_ns"')
    assert not diff.contrast_captures(sample, sample).unlike


def changed(sample: Study, **changes: object) -> Study:
    return replace(sample, manifest=replace(sample.manifest, **changes))  # type: ignore[arg-type]


def gpu_changed(sample: Study, **changes: object) -> Study:
    environment = sample.manifest.environment
    (gpu,) = environment.gpus_before
    return changed(sample, environment=replace(environment, gpus_before=(replace(gpu, **changes),)))  # type: ignore[arg-type]


def test_each_thing_that_makes_captures_unlike_is_named(sample: Study) -> None:
    environment = sample.manifest.environment

    def names(one: Study, other: Study) -> list[str]:
        return [n.evidence.get("what", n.id) for n in diff.unlike(one.manifest, other.manifest)]

    def clocked(name: str, factor: float) -> Study:
        variants = tuple(
            replace(v, rounds=tuple(
                replace(r, gpu=replace(r.gpu, sm_clock_mhz=int(factor * (r.gpu.sm_clock_mhz or 0)))) if r.gpu else r for r in v.rounds
            )) if v.name == name else v
            for v in sample.manifest.variants
        )  # fmt: skip
        return changed(sample, variants=variants)

    packages = {**environment.packages, "triton": "9.9"}
    assert names(sample, changed(sample, environment=replace(environment, packages=packages))) == ["package triton"]
    assert names(sample, changed(sample, environment=replace(environment, python="3.99"))) == ["Python"]
    assert names(sample, gpu_changed(sample, name="B200", driver="1")) == ["GPU", "driver"]
    assert names(gpu_changed(sample, ecc=True), gpu_changed(sample, ecc=False, mig=False)) == ["ECC"]
    assert names(gpu_changed(sample, mig=True), gpu_changed(sample, mig=False)) == ["MIG"]
    assert names(gpu_changed(sample, power_limit_w=700.0), gpu_changed(sample, power_limit_w=500.0)) == [
        "power limit (W)"
    ]
    assert names(sample, gpu_changed(sample, ecc=True)) == [], "an older capture does not say"
    assert names(sample, clocked("graph", 0.9)) == ["the SM clock while graph was timed (MHz)"]
    assert names(sample, clocked("graph", 0.99)) == []
    code = diff.unlike(sample.manifest, changed(sample, git="abc+dirty").manifest)
    assert [(n.id, n.severity) for n in code] == [("unlike-code", "info")] and "none and abc+dirty" in code[0].text


def test_two_unlike_traces_say_so_before_any_number(tmp_path: Path) -> None:
    pair = [str(recordings.path(f"graph-opportunity-{form}")) for form in ("faulty", "mended")]
    traces = [reporting._side(Path(p)) for p in pair]
    traces[1] = replace(traces[1], trace=replace(traces[1].trace, producer="another nsys"))
    found = compare(traces[0], traces[1])
    page, data = trace_pages.render(found), json.dumps(encode(found))
    body = page[page.index("<main>") :]
    assert 0 < body.index("differ in profiler") < body.index('id="verdict"')
    assert data.index("differ in profiler") < data.index("before_ns")


def marked(sample: Study) -> Study:
    """The sample with a twin of its baseline, and two rounds that something disturbed."""
    bad = {2: ("thermal (software)",), 5: ("another process on the GPU",)}

    def mark(record: VariantRecord) -> VariantRecord:
        own = bad if record.name == "overlap" else {}
        rounds = tuple(replace(r, used=r.index not in bad, disturbed=own.get(r.index, ())) for r in record.rounds)
        return replace(record, rounds=rounds, twin=rounds if record.name == "baseline" else ())

    variants = tuple(replace(v, record=mark(v.record)) for v in sample.variants)
    return replace(
        sample, variants=variants, manifest=replace(sample.manifest, variants=tuple(v.record for v in variants))
    )


def test_disturbed_rounds_are_marked_and_count_nowhere(sample: Study) -> None:
    study_marked = marked(sample)
    figure = timed.samples(study_marked)
    assert figure is not None
    crosses = {t.name: (len(t.x), t.marker.symbol) for t in figure.data if "disturbed" in t.name}
    each = {r.index: len(r.times_ns) for r in sample.variants[1].record.rounds}
    assert crosses["overlap, disturbed"] == (each[2] + each[5], "x") and "baseline, twin, disturbed" in crosses
    counts = [row[-1] for row in timed.times(study_marked).rows if row[0] == "overlap"]
    assert counts[2] == "no: thermal (software)" and counts[0] == "yes"
    assert timed.title(study_marked).endswith("2 of 8 rounds were disturbed and do not count")
    row = diff.contrast(study_marked).row("overlap")
    assert row is not None and row.verdict is not None and row.time_ns is not None
    assert (row.rounds, row.left_out, row.verdict.rounds, row.verdict.word) == (6, 2, 6, "UNCLEAR")
    assert row.samples == sum(each.values()) - each[2] - each[5]
    spoilt = replace(study_marked, variants=tuple(replace(v, record=replace(v.record, rounds=tuple(
        r if r.used else replace(r, times_ns=tuple(9 * t for t in r.times_ns)) for r in v.record.rounds
    ))) for v in study_marked.variants))  # fmt: skip
    assert diff.contrast(spoilt).row("overlap") == row, "what disturbed rounds took moves no number"
    assert measures.value(spoilt, "overlap", "step_time") == measures.value(study_marked, "overlap", "step_time")


def test_the_verdict_is_told_with_its_reason_in_text_and_page(sample: Study) -> None:
    found = diff.contrast(marked(sample))
    for shown in (text.diff_text(found), html.render(marked(sample), found), text.study_text(found)):
        assert "What decided" in shown and "6 rounds are too few" in re.sub(r"\s+", " ", shown)
    assert "end what disturbed rounds: thermal (software) (1), another process on the GPU (1)" in found.sentence
    (row,) = (r for r in timed.verdicts(diff.contrast(sample)).rows if r[0] == "graph")
    assert row[1:4] == ("1.684×", "1.680 to 1.686 (99 %)", "0.1 % (halves)") and row[6].startswith("FASTER: the whole")


def test_hostile_names_are_text_everywhere(sample: Study) -> None:
    variant = sample.variants[0]
    assert variant.trace is not None and variant.iterations is not None
    ops = variant.trace.ops.assign(name=variant.trace.ops["name"].cat.rename_categories(lambda n: f"{HOSTILE}{n}"))
    kernels = tuple(replace(k, name=HOSTILE + k.name) for k in variant.iterations.kernels)
    evil = replace(
        variant,
        trace=replace(variant.trace, ops=ops),
        iterations=replace(variant.iterations, kernels=kernels),
        record=replace(variant.record, summary=HOSTILE),
    )
    shown = html.render(replace(sample, variants=(evil, *sample.variants[1:])), diff.contrast(sample))
    assert "<script>alert" not in shown and "evil&lt;script&gt;" in shown
    data = re.search(r'id="data-timeline">(.*?)</script>', shown, flags=re.S)
    assert data is not None and "<" not in data.group(1) and json.loads(data.group(1))


def test_the_page_is_the_same_twice_and_asks_for_nothing(sample: Study, contrast: Diff, page: Path) -> None:
    written = page.read_text(encoding="utf-8")
    assert html.render(study.load(SAMPLE), diff.contrast(study.load(SAMPLE))) == written
    markup = re.sub(r"<script.*?</script>", "", written, flags=re.S)
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", markup)
    assert "default-src 'none'" in markup and "showSendToCloud: false" in written


def test_a_variant_without_trace_or_times_is_shown_as_such(sample: Study) -> None:
    bare = tuple(replace(v, trace=None, iterations=None, counters=None) for v in sample.variants)
    skipped = replace(bare[2], record=replace(bare[2].record, status="skipped", reason="needs a GPU", rounds=()))
    lone = replace(sample, variants=(bare[0], bare[1], skipped))
    found = diff.contrast(lone)
    assert found.optimized == "overlap" and not found.waterfall and found.limit is None
    assert "SKIPPED: needs a GPU" in html.render(lone, found) and "SKIPPED: needs a GPU" in text.diff_text(found)
    nothing = replace(lone, variants=(replace(bare[0], record=replace(bare[0].record, rounds=())),))
    assert "Nothing was timed" in diff.contrast(nothing).sentence and html.render_single(nothing)


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


def run(
    *words: str, cwd: Path, code: str = "import runpy; runpy.run_module('moeprof', run_name='__main__')"
) -> subprocess.CompletedProcess[str]:
    block = "import sys; sys.modules['torch'] = None; "  # as where torch is not installed: its import fails
    return subprocess.run(
        [sys.executable, "-P", "-c", block + f"sys.argv = {['moeprof', *words]!r}; " + code],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_the_sample_is_shown_without_torch(tmp_path: Path) -> None:
    ran = run("report", "--diff", "--sample", "kv_transfer", "-o", "page.html", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("FASTER  graph is") and ran.stdout.rstrip().endswith("Wrote page.html")
    assert "\x1b" not in ran.stdout, "no colour when piped"
    again = run("report", "--diff", "--sample", "kv_transfer", "-o", "page.html", cwd=tmp_path)
    assert again.returncode == 2 and "page.html exists" in again.stderr
    single = run("report", "--sample", "kv_transfer", "--json", cwd=tmp_path)
    assert json.loads(single.stdout)["page"] == "moeprof-out/kv_transfer.html"
    unknown = run("report", "--sample", "nothing", cwd=tmp_path)
    assert unknown.returncode == 2 and "known: kv_transfer" in unknown.stderr
    empty = run("report", cwd=tmp_path / "moeprof-out")
    assert empty.returncode == 1 and "there is no capture" in empty.stderr


def test_analyze_prints_and_gives_json(tmp_path: Path) -> None:
    trace = str(SAMPLE / "graph" / "trace.sqlite")
    shown = run("analyze", trace, "--range", "iteration", cwd=tmp_path)
    assert shown.returncode == 0 and "Time ledger" in shown.stdout and "iteration 7" in shown.stdout
    found = json.loads(run("analyze", trace, "--json", cwd=tmp_path).stdout)
    assert found["schema_version"] == 1 and found["source"]["kind"] == "nsys"
    (window,) = found["windows"]
    assert (
        sum(window["ledger"].values()) == window["span_ns"]
        and sum(window["idle"].values()) == window["ledger"]["idle_ns"]
    )
    assert set(run_keys(found)) >= {"windows", "kernels", "ranges", "findings", "notes"}
    variants = json.loads(run("analyze", str(SAMPLE), "--json", cwd=tmp_path).stdout)["variants"]
    assert list(variants) == ["baseline", "overlap", "graph"]
    missing = run("analyze", "nowhere.sqlite", cwd=tmp_path)
    assert missing.returncode == 1 and missing.stderr.startswith("error: there is no trace at nowhere.sqlite")


def run_keys(found: dict[str, object]) -> list[str]:
    return list(found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with Browser() as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_in_a_browser(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    figures = browser.evaluate(
        "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0 && f.getBoundingClientRect().height > 100)"
    )
    assert len(figures) >= 7 and all(figures), "every figure is drawn"
    assert browser.evaluate("document.body.innerText.includes('WebGL is not supported')") is False
    assert browser.evaluate("document.querySelectorAll('#figure-timeline canvas').length") > 0, (
        "the timeline is drawn with WebGL"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('.figure')].every(f => f.closest('section').querySelector('table'))"
    )
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "no sideways scrolling of the page"
    )
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].every(b => !/share|cloud|send/i.test(b.dataset.title || ''))"
    )
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate("document.documentElement.dataset.theme") == ("light" if dark else "dark")
    browser.screenshot(tmp_path / "page.png")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_disturbed_rounds_are_drawn_as_crosses(browser: Browser, sample: Study, tmp_path: Path) -> None:
    page, shown = tmp_path / "marked.html", marked(sample)
    page.write_text(html.render(shown, diff.contrast(shown)), encoding="utf-8")
    browser.events.clear()
    browser.open(page, width=390)
    assert "overlap, disturbed" in browser.evaluate("document.querySelector('#figure-times .legend').textContent")
    paths = "[...document.querySelectorAll('#figure-times .trace.scatter')].map(t => [...t.querySelectorAll('path.point')].map(p => p.getAttribute('d')[0] + p.getAttribute('d').length))"
    shapes = [set(marks) for marks in browser.evaluate(paths)]
    assert len(shapes) == 8 and len(set.union(*shapes)) == 2, "circles and crosses"
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "What decided" in browser.evaluate("document.querySelector('#variants').innerText")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_without_webgl_the_timeline_is_drawn_all_the_same(page: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with Browser(webgl=False) as browser:
        browser.open(page)
        assert browser.evaluate("document.body.innerText.includes('WebGL is not supported')") is False
        assert browser.evaluate("document.querySelectorAll('#figure-timeline .scatterlayer .trace').length") > 5
        assert browser.requests() == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_of_two_traces_in_a_browser(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page = tmp_path / "two.html"
    pair = [str(recordings.path(f"graph-opportunity-{form}")) for form in ("faulty", "mended")]
    ran = run("report", "--diff", *pair, "-o", str(page), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    drawn = "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0)"
    assert browser.evaluate(drawn) == [True]
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "graph-opportunity" in browser.evaluate("document.querySelector('#findings').innerText")
    assert browser.requests() == [] and browser.complaints() == []
