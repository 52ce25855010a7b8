"""Pages of captures on a CPU: a verdict says so, and a GPU technique has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, Ran, made

from moeprof import resources
from moeprof.capture.plan import make_plan
from moeprof.capture.request import Request
from moeprof.loaded import capture
from moeprof.notes import note
from moeprof.report import build, cpu, html, text
from moeprof.storage.manifest import Manifest


def on_a_cpu(manifest: Manifest) -> Manifest:
    return replace(manifest, device="cpu")


def functional(manifest: Manifest) -> Manifest:
    return replace(on_a_cpu(manifest), notes=(note("functional-check", what=manifest.name),))


def test_a_verdict_on_a_cpu_says_so(tmp_path: Path) -> None:
    page = build.page_of((capture.load(made(tmp_path / "cap", on_a_cpu, light=True)),))
    assert text.render(page).startswith("FASTER (CPU)  graph is 1.68 times as fast") and "FASTER (CPU)" in html.render(
        page
    )
    assert "(CPU)" not in text.render(build.page_of((capture.load(made(tmp_path / "gpu", light=True)),)))


def test_a_gpu_technique_on_a_cpu_has_no_verdict(tmp_path: Path) -> None:
    loaded = capture.load(made(tmp_path / "cap", functional))
    for page in (build.page_of((loaded,)), build.page_of((loaded, loaded))):
        printed = text.render(page)
        assert printed.startswith("Functional check: speed means nothing here; the result of ")
        for word in ("FASTER", "SLOWER", "UNCLEAR", "times as fast", "speed-up", "\nSlow ", "\nLeft "):
            assert word not in printed, word
        assert cpu.CLAIM.capitalize() in html.render(page) and ">FASTER<" not in html.render(page)


def test_a_wrong_result_of_a_functional_check_is_named(tmp_path: Path) -> None:
    def wrong(manifest: Manifest) -> Manifest:
        return replace(functional(manifest), variants=tuple(
            replace(v, proof=replace(v.proof, ok=v.name != "graph", reason="differs")) if v.proof else v for v in manifest.variants
        ))  # fmt: skip

    printed = text.render(build.page_of((capture.load(made(tmp_path / "cap", wrong, light=True)),)))
    assert "the result of baseline, overlap is right; the result of graph is wrong" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("workload", "is_functional"), [("kv_transfer", True), ("expert_parallel", True), ("router", False)]
)
def test_the_workloads_that_overlap_work_are_functional_checks_on_a_cpu(workload: str, is_functional: bool) -> None:
    plan = make_plan(Request(workload=workload, device="cpu", tools=("none",)), {})
    assert any(n.id == cpu.FUNCTIONAL for n in plan.notes) == is_functional


def test_a_recorded_trace_is_a_sample(command: Callable[..., Ran], tmp_path: Path) -> None:
    assert resources.trace_names() == ("item_in_loop", "item_in_loop_fixed")
    ran = command("report", "--sample", "item_in_loop")
    assert ran.code == 0 and ran.out.startswith("GPU 0 is idle 38.9 % of the time: the host waits for the GPU")
    before, after = (build.unpacked(name, tmp_path) for name in resources.trace_names())
    assert command("report", before, after).out.startswith("GPU 0: step: B takes 39 % less time than A")
    assert before.stat().st_size > 100_000
    assert SAMPLE.is_dir() and "item_in_loop" in command("report", "--sample", "item_in").err
