"""Kernels ranked by their cost: against a count of single nanoseconds, against real captures, joined with counters, from the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders.trace_tables import trace, traces
from click.testing import CliRunner
from hypothesis import given

from moeprof import resources, units
from moeprof.analysis.device import views
from moeprof.cli.main import cli
from moeprof.kernels.ranking import ORDERS, function, gaps, rank, rankings, shared_by_two
from moeprof.trace import Trace, read
from moeprof.trace.ncu.counters import read_counters

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@given(traces())
def test_exposed_time_and_gaps_are_those_of_a_count_of_nanoseconds(made: Trace) -> None:
    (view,) = views(made)
    spans = list(zip(view.starts.tolist(), view.ends.tolist(), strict=True))
    depth = [sum(s <= t < e for s, e in spans) for t in range(80)]
    alone = (view.ends - view.starts) - shared_by_two(view).covered(view.starts, view.ends)
    assert alone.tolist() == [sum(depth[t] == 1 for t in range(s, e)) for s, e in spans]
    found = gaps(view, view.starts * 0 + spans[0][0])
    for i, (start, _) in enumerate(spans):
        reach = max([spans[0][0], *(e for _, e in spans[:i])])
        assert found[i] == max(0, start - reach)


def test_costs_are_per_window_and_only_of_what_starts_inside() -> None:
    rows = [(0, 10, "a"), (12, 15, "b"), (14, 20, "a"), (30, 40, "a"), (41, 42, "b"), (60, 90, "a")]
    made = trace([{"start_ns": s, "end_ns": e, "name": n, "call": i, "grid_x": 4} for i, (s, e, n) in enumerate(rows)],
                 [{"start_ns": s - 2, "end_ns": s - 1, "name": "cudaLaunchKernel"} for s, _, _ in rows])  # fmt: skip
    (view,) = views(made)
    found = rank(view, [(0, 25), (25, 50)], "time")
    assert (found.windows, found.span_ns, found.covered) == (2, 25.0, None)
    a, b = found.kernels
    assert (a.name, a.count, a.time_ns, a.exposed_ns, a.gap_ns, a.launch_ns, a.median_ns) == (
        "a",
        1.5,
        13.0,
        12.5,
        2.5,
        1.5,
        10.0,
    )
    assert (b.name, b.count, b.time_ns, b.exposed_ns, b.gap_ns) == ("b", 1.0, 2.0, 1.5, 1.5)
    assert [k.name for k in rank(view, [(0, 25), (25, 50)], "gap").kernels] == ["a", "b"]
    assert a.grid[0] == 4 and a.limiter is None and not a.in_graph


@pytest.mark.parametrize("name", ["baseline", "overlap", "graph"])
def test_a_real_capture_is_ranked_whole_and_its_counters_cover_it(name: str) -> None:
    found = rankings(SAMPLE, None, name, None, "time")[name]
    view = max(views(read(SAMPLE / name / "trace.sqlite")), key=lambda v: len(v.ops))
    kernels = view.ops[view.is_kernel]
    total = float((kernels["end_ns"] - kernels["start_ns"]).sum())
    assert sum(k.time_ns for k in found.kernels) * found.windows == pytest.approx(total)
    assert sum(k.count for k in found.kernels) * found.windows == len(kernels)
    assert found.covered == 1.0 and all(k.counted == 1 and k.limiter for k in found.kernels)
    assert all(k.exposed_ns <= k.time_ns for k in found.kernels) and {k.in_graph for k in found.kernels} == {
        name == "graph"
    }
    hidden = sum(k.exposed_ns for k in found.kernels) / sum(k.time_ns for k in found.kernels)
    assert (hidden == 1.0) == (name == "baseline")  # beside nothing else there, beside copies in the others


def test_counters_join_by_name_and_shape_and_never_by_position() -> None:
    def row(launch: int, kernel: str, grid: str, value: float) -> dict[str, Any]:
        return {"launch": launch, "kernel": kernel, "grid": grid, "block": "(128, 1, 1)", "metric": "m", "value": value}

    shape = {"grid_y": 1, "grid_z": 1, "block_x": 128, "block_y": 1, "block_z": 1}
    names = [
        ("void f<(int)2>(float)", 4),
        ("void f<(int)2>(float)", 8),
        ("ns::g<A>(int)", 4),
        ("h<1>()", 4),
        ("h<2>()", 4),
    ]
    made = trace(
        [{"start_ns": 10 * i, "end_ns": 10 * i + 5, "name": n, "grid_x": x, **shape} for i, (n, x) in enumerate(names)]
    )
    counted = pd.DataFrame([
        row(0, "h<x>()", "(4, 1, 1)", 9.0),  # two of ours could be it: neither is
        row(1, "void f<(int)2>(float)", "(8, 1, 1)", 1.0), row(2, "void f<(int)2>(float)", "(8, 1, 1)", 3.0),
        row(3, "void ns::g<B>(int)", "(4, 1, 1)", 5.0),  # spelled otherwise, and the only one of its function and shape
        row(4, "other()", "(4, 1, 1)", 7.0),
    ])  # fmt: skip
    (view,) = views(made)
    found = {(k.name, k.grid[0]): (k.counted, k.counters) for k in rank(view, [(0, 100)], "time", counted).kernels}
    assert found["void f<(int)2>(float)", 8] == (2, {"m": 2.0}) and found["void f<(int)2>(float)", 4] == (0, {})
    assert found["ns::g<A>(int)", 4] == (1, {"m": 5.0})
    assert found["h<1>()", 4] == found["h<2>()", 4] == (0, {})
    assert rank(view, [(0, 100)], "time", counted).covered == pytest.approx(2 / 5)


def test_a_function_is_a_name_without_template_and_parameters() -> None:
    assert function("void at::native::<unnamed>::f<(int)4, g<int>>(T1 *, int)") == "f"
    assert function("triton_poi_fused_0") == "triton_poi_fused_0"


@pytest.mark.parametrize("by", ORDERS)
def test_the_command_prints_and_encodes_the_ranking(by: str) -> None:
    shown = CliRunner().invoke(cli, ["kernels", str(SAMPLE), "--by", by, "--top", "2"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    assert words.count("kernels of one window") == 3
    assert words.count("they cover 100.0 % of the kernel time") == 3 and words.count("and 1 more") == 3
    names = {k.name for r in rankings(SAMPLE, None, None, None, by).values() for k in r.kernels[:2]}
    assert len(names) >= 2 and all(units.short_kernel(name, 120) in words for name in names), "no name is cut"
    said = json.loads(CliRunner().invoke(cli, ["kernels", str(SAMPLE), "--by", by, "--json"]).output)
    for found in said["variants"].values():
        costs = [k[f"{by}_ns"] for k in found["kernels"]]
        assert costs == sorted(costs, reverse=True) and len(costs) == 3
        assert all(k["counters"]["dram__bytes.sum"] > 0 for k in found["kernels"])


def test_a_range_and_a_trace_without_counters(traces: Path) -> None:
    path = traces / "h200" / "streams_graph_node.sqlite"
    shown = CliRunner().invoke(cli, ["kernels", str(path)])
    assert shown.exit_code == 0 and "No counters" in shown.output
    names = {str(n) for n in read(path).ranges["name"]}
    one = sorted(names)[0]
    inside = rankings(path, one, None, None, "time")[path.name]
    whole = rankings(path, None, None, None, "time")[path.name]
    assert (
        inside.windows > 0
        and sum(k.count for k in inside.kernels) * inside.windows <= sum(k.count for k in whole.kernels) * whole.windows
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([str(SAMPLE), "--variant", "x"], "has no variant 'x'"), ([str(SAMPLE / "graph" / "trace.sqlite"), "--variant", "x"], "is a trace"),
        ([str(SAMPLE), "--range", "x"], "has no range 'x'"), ([str(SAMPLE), "--device", "7"], "on device 7"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_clear_line(words: list[str], said: str) -> None:
    ran = CliRunner().invoke(cli, ["kernels", *words])
    assert ran.exit_code != 0 and said in str(ran.exception)


def test_a_shape_is_short_and_unambiguous() -> None:
    assert [units.shape(s) for s in ((1, 1, 1), (4, 1, 1), (4, 2, 1), (1, 1, 3))] == ["1", "4", "4x2", "1x1x3"]
    assert len(read_counters(SAMPLE / "graph" / "counters.csv"))
