"""What can be asserted of GPU work, on a recorded trace of a GPU: each assertion holds on it and fails on a planted fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.kineto_trace import OTHER_THREAD, Recorded, small
from hypothesis import given
from hypothesis import strategies as st

from moeprof import resources
from moeprof.errors import TraceError, UsageError
from moeprof.loaded import pytest_run
from moeprof.stats import verdict as verdicts
from moeprof.testing import clocking, numbers
from moeprof.testing.errors import ProbeError
from moeprof.testing.fixture import Moeprof
from moeprof.testing.limits import Limits
from moeprof.testing.log import Log
from moeprof.testing.numbers import Part
from moeprof.testing.work import Work

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@pytest.fixture
def probe(tmp_path: Path) -> Moeprof:
    return Moeprof(Log(), tmp_path)


@pytest.fixture
def recorded(traces: Path) -> Recorded:
    return Recorded(traces / "h200" / "torch_profiler.json")


# what holds on the recorded trace, the fault that breaks it, and what the failure says
FAULTS: list[tuple[str, Callable[[Work], float], Callable[[Recorded], None], tuple[str, ...]]] = [
    ("sync", lambda w: w.sync_calls(at_most=0), lambda r: r.add_sync(), ("sync_calls: 0.2", "cudaStreamSynchronize inside aten::item")),
    ("sync-elsewhere", lambda w: w.sync_calls(at_most=0), lambda r: r.add_sync(OTHER_THREAD), ("cudaStreamSynchronize inside aten::item",)),
    ("pageable", lambda w: w.exposed_copy_ms(at_most=1), lambda r: r.make_copies_pageable(), ("pageable memory", "pin the host buffer", "H2D by cudaMemcpyAsync")),
    ("pageable-h2d", lambda w: w.exposed_copy_ms("H2D", at_most=1), lambda r: r.make_copies_pageable(), ("exposed_copy H2D", "pageable memory")),
    ("overlap", lambda w: w.copy_overlap("H2D", at_least=0.2), lambda r: r.make_copies_pageable(), ("copy_overlap H2D: 0.11", "pageable memory")),
    ("launch", lambda w: w.launches(at_most=2), lambda r: r.add_launch(), ("launches: 2.2", "cudaLaunchKernel inside aten::softmax")),
    ("new-kernel", lambda w: w.only_kernels("nvjet", "SoftMax"), lambda r: r.add_launch(), ("stray_kernel", "asserted: at most 0")),
    ("no-kernel", lambda w: w.no_kernels("stray"), lambda r: r.add_launch(), ("0.2 x void stray_kernel(float*)",)),
    ("count", lambda w: w.kernels(exactly=2), lambda r: r.add_launch(), ("kernels: 2.2", "asserted: exactly 2")),
    ("missing", lambda w: w.kernels("SoftMax", at_least=1), lambda r: r.drop_kernel("SoftMax"), ("what ran:", "nvjet_sm90")),
    ("missing-exactly", lambda w: w.kernels("SoftMax", exactly=1), lambda r: r.drop_kernel("SoftMax"), ("what ran:", "nvjet_sm90")),
    ("slow", lambda w: w.throughput_gb_per_s(bytes_moved=1e9, at_least=250), lambda r: r.make_copies_pageable(), ("GB/s; asserted: at least 250 GB/s", "profiler's overhead")),
    ("idle", lambda w: w.idle_ms(at_most=3), lambda r: r.pause(5000), ("ms host: outside CUDA", "idle by what the host did")),
]  # fmt: skip


@pytest.mark.parametrize(("holds", "plant", "parts"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_an_assertion_holds_and_fails_on_the_planted_fault(
    probe: Moeprof,
    recorded: Recorded,
    tmp_path: Path,
    holds: Callable[[Work], float],
    plant: Callable[[Recorded], None],
    parts: tuple[str, ...],
) -> None:
    holds(probe.read(recorded.written(tmp_path / "well.json"), range_name="iter"))
    plant(recorded)
    with pytest.raises(AssertionError) as caught:
        holds(probe.read(recorded.written(tmp_path / "faulty.json"), range_name="iter"))
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "ledger of an iteration on device 0 (mean of 5)" in text and "launches" in text, "the small ledger"
    assert [c.outcome for c in probe._log.checks] == ["passed", "failed"]


def test_only_what_was_launched_inside_the_range_counts(probe: Moeprof, traces: Path) -> None:
    path = traces / "h200" / "torch_profiler.json"
    whole, inside = probe.read(path), probe.read(path, range_name="iter")
    assert whole.sync_calls(exactly=2) == 2 and whole.launches(exactly=15) == 15  # the graph's replays, the last waits
    assert inside.launches(exactly=2) == 2 and inside.kernels(exactly=2) == 2 and inside.capture.iterations == 5
    assert whole.capture.window is not None and inside.capture.window is not None
    assert inside.capture.window.compute_busy_ns < whole.capture.window.compute_busy_ns
    assert probe.read(path, range_name="iter", iterations=10).kernels(exactly=1) == 1


def test_the_sample_of_a_gpu_under_nsys(probe: Moeprof) -> None:
    graph = probe.read(SAMPLE / "graph" / "trace.sqlite", range_name="iteration", domain="moeprof")
    graph.launches(exactly=1)
    graph.copy_overlap(at_least=0.6)
    graph.sync_calls(at_most=0)
    serial = probe.read(SAMPLE / "baseline" / "trace.sqlite", range_name="iteration", domain="moeprof")
    with pytest.raises(AssertionError, match="in the stream of the kernels"):
        serial.copy_overlap(at_least=0.6)
    with pytest.raises(AssertionError, match=r"\d x cu\w*Launch"):  # nsys keeps no operators: the calls alone
        serial.launches(at_most=1)


def test_the_ledger_of_the_capture_sums_and_numbers_are_of_one_iteration(probe: Moeprof, tmp_path: Path) -> None:
    work = probe.read(small(tmp_path / "t.json", iterations=4), range_name="step")
    window = work.capture.window
    assert window is not None and window.span_ns == 360_000  # the first kernel's start to the last copy's end
    assert work.exposed_copy_ms(at_most=0.02) == 0.02 and work.copy_overlap(at_least=0.5) == 0.5
    assert "0.090 ms = compute 0.040 ms + exposed copy 0.020 ms + idle 0.030 ms" in str(work)


def test_what_is_not_known_fails_with_the_reason_or_skips(tmp_path: Path) -> None:
    path = small(tmp_path / "t.json")
    cpu = tmp_path / "cpu.json"
    cpu.write_text(re.sub(r'"cat": "(kernel|gpu_memcpy|cuda_runtime)"', '"cat": "none"', path.read_text()))
    work = Moeprof(Log(), tmp_path).read(cpu, range_name="step")
    assert work.capture.device == "cpu" and work.kernels("aten::mm", exactly=1) == 1
    with pytest.raises(AssertionError, match="not known here: operators on a CPU make no CUDA calls"):
        work.launches(at_most=100)
    with pytest.raises(AssertionError, match="not known here: no copy ran"):
        work.copy_overlap(at_least=0)
    with pytest.raises(AssertionError, match="not known here: no D2H copy ran"):
        work.copy_overlap("D2H", at_least=0)
    with pytest.raises(pytest.skip.Exception, match="not known here"):
        Moeprof(Log(unknown="skip"), tmp_path).read(cpu, range_name="step").sync_calls(at_most=0)


def test_on_a_gpu_operators_never_stand_in_for_kernels(tmp_path: Path) -> None:
    path = small(tmp_path / "t.json")
    lost = re.sub(r'"cat": "(kernel|gpu_memcpy)"', '"cat": "none"', path.read_text())
    path.write_text(lost)
    capture = numbers.captured(Part(path, "step", None), 1, "cuda", 2)
    assert capture.kernels == () and pytest_run.launches(capture) == 1
    with pytest.raises(ProbeError, match="another tool"):
        numbers.refuse_empty(capture, may_be_empty=True)
    path.write_text(lost.replace('"cat": "cuda_runtime"', '"cat": "none"'))
    empty = numbers.captured(Part(path, "step", None), 1, "cuda", 2)
    assert (pytest_run.launches(empty), pytest_run.sync_calls(empty), pytest_run.copy_overlap(empty)) == (0, 0, None)
    with pytest.raises(ProbeError, match="no work ran on the GPU"):
        numbers.refuse_empty(empty, may_be_empty=False)
    numbers.refuse_empty(empty, may_be_empty=True)


def test_what_cannot_be_asked_is_one_clear_line(probe: Moeprof, tmp_path: Path) -> None:
    path = small(tmp_path / "t.json")
    work = probe.read(path)
    for ask in (
        work.launches, lambda: work.kernels(at_most=float("nan")), lambda: work.kernels("(", at_most=1), work.only_kernels,
        lambda: probe.record(lambda: None, iterations=0), lambda: probe.record(lambda: None, device="tpu"),
        lambda: probe.faster(lambda: None, lambda: None, rounds=7),
    ):  # fmt: skip
        with pytest.raises(ProbeError) as caught:
            ask()
        assert caught.value.hint and caught.value.hint in str(caught.value)
    with pytest.raises(UsageError, match="no range 'nothing'"):
        probe.read(path, range_name="nothing")
    with pytest.raises(TraceError, match="no trace at"):
        probe.read(tmp_path / "nowhere.json")


# ---- times


def pair(new: list[int], old: list[int], twin: list[int] | None = None) -> clocking.Pair:
    """Rounds of three samples around these medians."""
    rounds = [[[m - 1, m, m + 1] for m in medians] for medians in (new, old, twin or old)]
    verdict = verdicts.of_rounds(rounds[1], rounds[0], twin=rounds[2])
    assert verdict is not None
    return clocking.Pair(rounds[0], rounds[1], verdict)


QUIET = [1000, 1001, 999, 1000, 1002, 998, 1000, 1001]
NOISY = [1000, 1400, 700, 1000, 1350, 720, 1010, 1390]


@pytest.mark.parametrize(
    ("new", "old", "by", "outcome"),
    [
        (QUIET, [2 * m for m in QUIET], 1.2, "passed"), (QUIET, [2 * m for m in QUIET], 2.5, "failed"), (QUIET, QUIET, 1.0, "failed"),
        ([2 * m for m in QUIET], QUIET, 1.0, "failed"), (NOISY, [m + 100 for m in NOISY[::-1]], 1.0, "unclear"), (QUIET, NOISY, 1.2, "unclear"),
        (QUIET, [m + 200 + 40 * (i % 2) for i, m in enumerate(QUIET)], 1.21, "unclear"),
    ],
)  # fmt: skip
def test_faster_asserts_on_the_whole_interval(new: list[int], old: list[int], by: float, outcome: str) -> None:
    check = clocking.faster(pair(new, old), by)
    assert check.outcome == outcome and check.limit == f"at least {by:g} x"
    assert (check.detail == "") == (outcome == "passed")
    if check.detail:
        assert "(99 % interval " in check.detail and "noise" in check.detail
    assert check.detail.startswith("UNCLEAR") == (outcome == "unclear")


@pytest.mark.parametrize(
    ("new", "old", "than", "outcome"),
    [(QUIET, QUIET, 1.03, "passed"), ([m + 100 for m in QUIET], QUIET, 1.03, "failed"), (NOISY, QUIET, 1.03, "unclear"), (QUIET, [2 * m for m in QUIET], 0.6, "passed")],
)  # fmt: skip
def test_not_slower_asserts_on_the_whole_interval(new: list[int], old: list[int], than: float, outcome: str) -> None:
    assert clocking.not_slower(pair(new, old), than).outcome == outcome


def test_a_difference_as_large_as_that_of_the_twin_is_unclear() -> None:
    new, old = QUIET, [m + 50 for m in QUIET]
    assert clocking.faster(pair(new, old), 1.0).outcome == "passed"
    assert clocking.faster(pair(new, old, [m + 70 for m in old]), 1.0).outcome == "unclear"


def test_both_are_timed_in_the_same_rounds_and_the_old_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    order: list[str] = []
    clock = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock[0])

    def run(name: str, cost_ns: int) -> Callable[[], None]:
        def once() -> None:
            order.append(name)
            clock[0] += cost_ns

        return once

    timed = clocking.timed_pair(run("new", 1000), run("old", 1500), "cpu", 8, 3e-6)
    assert timed.verdict.word == "FASTER" and timed.verdict.effect is not None
    assert timed.verdict.effect.low == pytest.approx(1.5) and timed.verdict.noise_from == "twins"
    assert {t for r in timed.new for t in r} == {1000} and {t for r in timed.old for t in r} == {1500}
    assert len(timed.new) == len(timed.old) == 8 and order.count("old") > order.count("new") > 24


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_limits_hold_exactly_where_the_value_lies_inside(low: float, value: float) -> None:
    assert Limits(at_least=low).hold(value) == (value >= low * (1 - 1e-9))
    assert Limits(at_most=low).hold(value) == (value <= low * (1 + 1e-9))
    assert Limits(exactly=low).hold(low) and Limits(at_least=low, at_most=low).hold(low)
