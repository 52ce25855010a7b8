"""A recording is cut to ranges: what was launched inside stays, though the GPU runs it later."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from builders import nsys_export

from moeprof.capture.program import cut
from moeprof.capture.program.window import Window
from moeprof.errors import CaptureError
from moeprof.trace import read

US = 1_000


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Eight iterations in each of two processes; a range "iteration" of each launches a kernel and a copy, which end after it."""
    path = tmp_path / "t.sqlite"
    nsys_export.make_export(path, 8, pids=(nsys_export.PID, 77))
    return path


@pytest.mark.parametrize(("steps", "kept"), [(3, 3), (None, 8), (99, 8)])
def test_so_many_ranges_of_each_process_stay_with_their_work(export: Path, steps: int | None, kept: int) -> None:
    within = cut.bounds(read(export).ranges, Window(start_on="iter.*", steps=steps))
    cut.nsys_export(export, within)
    trace = read(export)
    assert within.steps == kept and list(trace.ranges["name"]) == ["iteration"] * 2 * kept
    kinds = trace.ops["kind"].astype(str)
    assert kinds.value_counts().to_dict() == {"kernel": 2 * kept, "copy": 2 * kept}
    assert len(trace.calls) == 4 * kept and (trace.ops["call"] >= 0).all()
    last = trace.ops[trace.ops["kind"] == "copy"]["end_ns"].max()
    assert last == (kept - 1) * nsys_export.PERIOD_NS + 90 * US > within.end or steps is None


def test_work_that_was_launched_before_goes_though_it_runs_inside(export: Path) -> None:
    with closing(sqlite3.connect(export)) as db:
        db.execute("UPDATE NVTX_EVENTS SET text = 'late', textId = NULL WHERE int64Value = 5")
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = 520000 WHERE start = 410000")  # launched by iteration 4
        db.commit()
    cut.nsys_export(export, cut.bounds(read(export).ranges, Window(start_on="late", steps=1)))
    trace = read(export)
    assert len(trace.ops) == 4 and trace.ops["start_ns"].min() == 510 * US


def test_a_name_that_no_range_has_is_told_with_those_there_are(export: Path) -> None:
    with pytest.raises(
        CaptureError, match="no NVTX range has a name that matches 'iter'; recorded are: 'iteration'"
    ) as told:
        cut.bounds(read(export).ranges, Window(start_on="iter"))
    assert "whole recording was kept" in told.value.hint


def test_a_range_inside_another_is_not_counted() -> None:
    rows = [(1, 0, 10, "a"), (1, 2, 4, "a"), (1, 12, 20, "a"), (1, 30, 40, "a"), (2, 5, 8, "a")]
    ranges = pd.DataFrame(rows, columns=["pid", "start_ns", "end_ns", "name"])
    assert cut.bounds(ranges, Window(start_on="a", steps=2)) == cut.Bounds(0, 20, 2)


def test_a_trace_of_torch_profiler_is_cut_the_same_way(tmp_path: Path) -> None:
    def event(cat: str, ts: float, name: str = "x", correlation: int | None = None) -> dict[str, object]:
        args = {} if correlation is None else {"correlation": correlation}
        return {"ph": "X", "cat": cat, "ts": ts, "dur": 4.0, "pid": 1, "tid": 1, "name": name, "args": args}

    events = [
        {"ph": "M", "name": "process_name"}, event("user_annotation", 10.0, "step"), event("user_annotation", 20.0, "step"),
        event("cpu_op", 5.0, "before"), event("cpu_op", 11.0, "inside"), event("cuda_runtime", 12.0, "launch", 1),
        event("kernel", 19.0, "late", 1), event("cuda_runtime", 6.0, "launch", 2), event("kernel", 11.0, "early", 2),
        event("cpu_op", 21.0, "next"), {"ph": "s", "cat": "ac2g", "id": 1, "ts": 12.0}, {"ph": "f", "cat": "ac2g", "id": 2, "ts": 11.0},
    ]  # fmt: skip
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": events}))
    cut.kineto_json(path, Window(start_on="step", steps=1))
    left = json.loads(path.read_text())["traceEvents"]
    assert [e.get("name", e.get("cat")) for e in left] == ["process_name", "step", "inside", "launch", "late", "ac2g"]
