"""Steps are found where they are planted: in marks, in families of ranges, and in launches alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.trace_tables import trace
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis import steps
from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import views
from moeprof.trace import Trace, read

LAYER = ("norm", "qkv", "attention", "gate", "experts", "combine")
Rows = list[dict[str, Any]]


def program(
    requests: int,
    tokens: int,
    layers: int,
    *,
    chooser: str = "argmax_kernel",
    set_up: int = 0,
    slow: int | None = None,
    marks: str | None = None,
    prefill: bool = True,
) -> tuple[Trace, list[int]]:
    """A decode loop: each request prefills and then decodes; returns the trace and the start of each forward pass."""
    ops: Rows = []
    calls: Rows = []
    ranges: Rows = []
    starts: list[int] = []
    clock = 1000

    def launch(name: str, length: int = 50) -> None:
        nonlocal clock
        calls.append({"start_ns": clock, "end_ns": clock + 10})
        ops.append({"start_ns": clock + 20, "end_ns": clock + 20 + length, "name": name, "call": len(calls) - 1})
        clock += 20 + length + 5

    for i in range(set_up):
        launch(f"load_{i % 7}")
    for _ in range(requests):
        for token in range(tokens):
            starts.append(clock + 20)
            begin = clock
            launch("embedding")
            for layer in range(layers):
                if slow == len(starts) - 1 and layer == 0:
                    clock += 100_000
                for part in LAYER:
                    launch(f"prefill_{part}" if prefill and token == 0 and part == "attention" else part)
            launch("head")
            launch(chooser)
            if marks:
                ranges.append({"start_ns": begin, "end_ns": clock - 1, "name": marks.format(len(starts)), "domain": ""})
            clock += 300
    return trace(ops, calls, ranges), starts


def only(made: Trace) -> steps.StepSpans | None:
    return steps.find(made, views(made)[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 20), st.integers(1, 40), st.integers(0, 200))
def test_a_step_is_neither_a_layer_nor_a_request(requests: int, tokens: int, layers: int, set_up: int) -> None:
    made, starts = program(requests, tokens, layers, set_up=min(set_up, requests * tokens))
    found = only(made)
    assert found is not None and found.sure and found.source == "anchor"
    assert found.starts.tolist() == starts


def test_without_a_kernel_that_chooses_the_outermost_level_with_many_periods_is_taken_and_not_called_sure() -> None:
    made, starts = program(3, 20, 12, chooser="other")
    found = only(made)
    assert found is not None and not found.sure
    assert found.starts.tolist() == starts


def test_a_step_begins_with_launches_that_it_makes_more_than_once() -> None:
    kinds = ("copy", "copy", "kernel", "result") * 5
    found = only(trace([{"start_ns": 100 * i, "end_ns": 100 * i + 50, "name": name} for i, name in enumerate(kinds)]))
    assert found is not None and found.starts.tolist() == [0, 400, 800, 1200, 1600] and found.end == 1950


def test_steps_are_found_once_for_a_view_and_anew_for_other_ranges() -> None:
    made, _ = program(1, 10, 3, marks="step_{}")
    (view,) = views(made)
    first = steps.find(made, view)
    assert first is not None and first.source == "range" and steps.find(made, view) is first
    bare = steps.find(replace(made, ranges=made.ranges.iloc[:0]), view)
    assert bare is not None and bare.source == "anchor"


def test_steps_tile_and_the_last_one_ends_with_its_last_operation() -> None:
    made, starts = program(1, 10, 3)
    found = only(made)
    assert found is not None
    assert found.ends[:-1].tolist() == starts[1:]
    assert found.ends[-1] == made.ops["end_ns"].max()


def test_a_slow_step_is_named_with_what_it_has_more_of() -> None:
    made, _ = program(1, 30, 4, slow=17, prefill=False)
    (summary,) = analyze(made).steps
    assert [(step.number, step.more_of) for step in summary.slow] == [(17, "idle: host")]
    assert abs(summary.slow[0].more_ns - 100_000) < 1000
    assert summary.median_ns < summary.slow[0].span_ns / 2


def test_leading_slow_steps_are_warm_up_and_do_not_count_in_the_quantiles() -> None:
    made, _ = program(1, 30, 4, slow=0, prefill=False)
    (summary,) = analyze(made).steps
    assert summary.warm_up == 1 and summary.slow == ()
    assert summary.p99_ns < 1.1 * summary.median_ns


@pytest.mark.parametrize("marks", ["step_{}", "ProfilerStep#{}", "decode token {}"])
def test_numbered_ranges_are_one_family(marks: str) -> None:
    made, starts = program(2, 5, 3, chooser="other", marks=marks)
    found = only(made)
    assert found is not None and found.sure and len(found) == 10
    assert found.source == ("profiler" if marks.startswith("Prof") else "range")
    assert found.starts.tolist() == starts


def test_one_step_mark_of_a_profiler_means_that_layers_are_no_steps() -> None:
    made, _ = program(1, 1, 40, marks="ProfilerStep#{}")
    assert only(made) is None
    unmarked, _ = program(1, 1, 40)
    layers = only(unmarked)
    assert layers is not None and len(layers) == 40 and not layers.sure


def test_work_without_repetition_has_no_steps() -> None:
    rng = np.random.default_rng(1)
    names = [f"kernel_{i}" for i in rng.integers(0, 400, 600)]
    made = trace([{"start_ns": 100 * i, "end_ns": 100 * i + 60, "name": name} for i, name in enumerate(names)])
    assert only(made) is None


def test_a_loop_that_the_trace_ends_with_counts_after_a_long_set_up() -> None:
    made, starts = program(1, 12, 4, set_up=4000)
    found = only(made)
    assert found is not None and found.starts.tolist() == starts


def test_a_graph_replay_is_one_launch_and_graph_nodes_without_calls_do_no_harm() -> None:
    calls = [{"start_ns": 1000 * i, "end_ns": 1000 * i + 5, "name": "cudaGraphLaunch"} for i in range(10)]
    nodes = [
        {
            "start_ns": 1000 * i + 10 * j + 10,
            "end_ns": 1000 * i + 10 * j + 18,
            "name": f"k{j}",
            "graph_node": j,
            "call": i,
        }
        for i in range(10)
        for j in range(9)
    ]
    copies = [
        {"start_ns": 1000 * i + 200, "end_ns": 1000 * i + 220, "kind": "copy", "name": "D2H", "bytes": 8}
        for i in range(10)
    ]
    found = only(trace(sorted(nodes + copies, key=lambda op: int(op["start_ns"])), calls))
    assert found is not None and found.starts.tolist() == [1000 * i + 10 for i in range(10)]
    orphans = only(trace([{**node, "call": -1} for node in nodes]))
    assert orphans is not None and len(orphans) == 10


def test_families_fold_numbers() -> None:
    assert steps.family("step_12") == steps.family("step_7") == "step_#"
    assert steps.family("AllToAll4D, seq = 46286, op_id = 993812") == "AllToAll#D, seq = #, op_id = #"


@pytest.mark.parametrize(
    ("name", "count", "period_ms"),
    [
        ("nsys/mfu_2gpu_after.sqlite", 15, 18.8),
        ("kineto/hta_diff_control.json.gz", 6, 76.9),
        ("h200/streams_graph_node.sqlite", 5, 0.35),
        ("kineto/h100_qwen.json.gz", None, None),  # one step mark: 36 layers are no steps
        ("kineto/vllm_decode_graph.json.gz", None, None),  # one execute mark
    ],
)
def test_real_traces(traces: Path, name: str, count: int | None, period_ms: float | None) -> None:
    found = only(read(traces / name))
    if count is None or period_ms is None:
        assert found is None
        return
    assert found is not None
    assert abs(len(found) - count) <= 2
    steady = float(np.median(found.lengths[found.warm_up :])) / 1e6
    assert abs(steady / period_ms - 1) < 0.05
