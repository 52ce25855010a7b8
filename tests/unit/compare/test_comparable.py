"""What makes captures unlike, and which rounds do not count: told before any number, in text and page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders.sample_captures import marked
from pages import pair, printed, rendered, told
from recorded import recordings

from moeprof import resources
from moeprof.compare import captures, comparable, variants
from moeprof.compare import traces as two_traces
from moeprof.errors import CaptureError
from moeprof.gate import metrics
from moeprof.loaded import analysed_trace, capture
from moeprof.loaded.capture import Capture
from moeprof.report import html, rounds, text
from moeprof.report import traces as trace_pages
from moeprof.report.figures.style import variant_colours

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@pytest.fixture(scope="module")
def sample() -> Capture:
    return capture.load(SAMPLE)


def test_two_captures_are_contrasted_and_unlike_ones_flagged(sample: Capture) -> None:
    fewer_tokens = replace(sample, manifest=replace(sample.manifest, params={**sample.manifest.params, "tokens": 1}))
    comparison = captures.compare(sample, fewer_tokens)
    assert [(n.evidence["what"], n.evidence["after"]) for n in comparison.unlike] == [("parameter tokens", "1")]
    assert (comparison.baseline, comparison.optimized) == ("A: graph", "B: graph")
    row = comparison.row("B: graph")
    assert row is not None and row.verdict is not None and row.verdict.word == "SAME"
    row_alone = variants.compare(sample).row("graph")
    assert row_alone is not None and (row.efficiency, row.compute_ratio) == (
        row_alone.efficiency,
        row_alone.compute_ratio,
    )
    assert sum(b.delta_ns for b in comparison.waterfall) == 0
    shown = html.render(pair(sample, fewer_tokens))
    body = shown[shown.index("<main") :]
    assert "These two captures are unlike" in body
    assert body.index("the two captures differ in parameter tokens") < body.index("17.43"), "before any number"
    lines = text.render(pair(sample, fewer_tokens))
    assert lines.index("differ in parameter tokens") < lines.index("17.43")
    data = json.dumps(pair(sample, fewer_tokens).data)
    assert data.index("differ in parameter tokens") < data.index('"time_ns"')
    assert not captures.compare(sample, sample).unlike


def changed(sample: Capture, **changes: object) -> Capture:
    return replace(sample, manifest=replace(sample.manifest, **changes))  # type: ignore[arg-type]


def gpu_changed(sample: Capture, **changes: object) -> Capture:
    environment = sample.manifest.environment
    (gpu,) = environment.gpus_before
    return changed(sample, environment=replace(environment, gpus_before=(replace(gpu, **changes),)))  # type: ignore[arg-type]


def test_each_thing_that_makes_captures_unlike_is_named(sample: Capture) -> None:
    environment = sample.manifest.environment

    def names(before: Capture, after: Capture) -> list[str]:
        return [n.evidence.get("what", n.id) for n in comparable.unlike(before.manifest, after.manifest)]

    def clocked(name: str, factor: float) -> Capture:
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
    code = comparable.unlike(sample.manifest, changed(sample, git="abc+dirty").manifest)
    assert [(n.id, n.severity) for n in code] == [("unlike-code", "info")] and "none and abc+dirty" in code[0].text


def test_two_unlike_traces_say_so_before_any_number(tmp_path: Path) -> None:
    pair = [str(recordings.path(f"graph-opportunity-{form}")) for form in ("faulty", "mended")]
    traces = [analysed_trace.load(Path(p)) for p in pair]
    traces[1] = replace(traces[1], trace=replace(traces[1].trace, producer="another nsys"))
    made = trace_pages.page(two_traces.compare(traces[0], traces[1]))
    page, data = html.render(made), json.dumps(made.data)
    body = page[page.index("<main") :]
    assert 0 < body.index("differ in profiler") < body.index('id="verdict"')
    assert data.index("differ in profiler") < data.index("before_ns")


def test_disturbed_rounds_are_marked_and_count_nowhere(sample: Capture) -> None:
    study_marked = marked(sample)
    figure = rounds.samples(study_marked, variant_colours(["baseline", "overlap", "graph"], "baseline"))
    assert figure is not None
    crosses = {
        t.name: (sum(int(text.partition(" sample")[0]) for text in t.text), t.marker.symbol)
        for t in figure.data
        if "disturbed" in t.name
    }
    samples = {r.index: len(r.times_ns) for r in sample.variants[1].record.rounds}
    assert crosses["overlap, disturbed"] == (samples[2] + samples[5], "x") and "baseline, twin, disturbed" in crosses
    counts = [row[-1] for row in rounds.times(study_marked).rows if row[0] == "overlap"]
    assert counts[2] == "no: thermal (software)" and counts[0] == "yes"
    assert rounds.title(study_marked).endswith("2 of 8 rounds were disturbed and do not count")
    row = variants.compare(study_marked).row("overlap")
    assert row is not None and row.verdict is not None and row.time_ns is not None
    assert (row.rounds, row.left_out, row.verdict.rounds, row.verdict.word) == (6, 2, 6, "UNCLEAR")
    assert row.samples == sum(samples.values()) - samples[2] - samples[5]
    spoilt = replace(study_marked, variants=tuple(replace(v, record=replace(v.record, rounds=tuple(
        r if r.used else replace(r, times_ns=tuple(9 * t for t in r.times_ns)) for r in v.record.rounds
    ))) for v in study_marked.variants))  # fmt: skip
    assert variants.compare(spoilt).row("overlap") == row, "what disturbed rounds took moves no number"
    assert metrics.value(spoilt, "overlap", "step_time") == metrics.value(study_marked, "overlap", "step_time")


def test_the_verdict_is_told_with_its_reason_in_text_and_page(sample: Capture) -> None:
    comparison = variants.compare(marked(sample))
    for shown in (printed(marked(sample), comparison), rendered(marked(sample), comparison)):
        assert "What decided" in shown and "6 rounds are too few" in re.sub(r"\s+", " ", shown)
    assert (
        "end what disturbed rounds: thermal (software) (1), another process on the GPU (1)"
        in told(marked(sample)).sentence
    )
    (row,) = (r for r in rounds.verdicts(variants.compare(sample)).rows if r[0] == "graph")
    assert row[1:4] == ("1.684×", "1.680 to 1.686 (99 %)", "0.1 % (halves)") and row[6].startswith("FASTER: the whole")


def test_captures_of_commands_that_timed_unlike_things_are_refused(sample: Capture) -> None:
    def of(clock: str) -> Capture:
        return replace(sample, manifest=replace(sample.manifest, clock=clock))

    with pytest.raises(CaptureError, match="timed unlike things: each region 'step', and each run"):
        captures.compare(of("each region 'step'"), of("each run"))
    named = replace(sample.manifest, variants=(replace(sample.manifest.variants[0], command=("python", "a b.py")),))
    notes = comparable.unlike(sample.manifest, named)
    assert any(n.evidence["what"] == "command of baseline" and n.evidence["after"] == "python 'a b.py'" for n in notes)
