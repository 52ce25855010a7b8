"""Rules on real traces: each planted fault is named first, healthy programs are silent, gains are bounded; a user's rules."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from paths import ROOT
from recorded import recordings
from recorded.recordings import FAULTS, names, path, scene, trace

sys.path.insert(0, str(ROOT / "scripts"))

from moeprof.cli.main import cli
from moeprof.errors import ToolError, UsageError
from moeprof.findings import find
from moeprof.findings.steady_state import focus
from moeprof.loaded.trace import analysis_of
from moeprof.trace import Trace, read

# what a recording's program is expected to show, where its name is not the rule's
EXPECTED = {
    "legacy-copy": "legacy-default-stream", "sync-item": "sync-api", "sync-copy": "sync-api", "sync-between": "sync-api",
    "empty-cache": "allocator-in-loop", "slow-compilation": "slow-loading", "slow-modules": "slow-loading",
}  # fmt: skip
UNTELLABLE = (
    "first-iteration-faulty-whole-bare"  # set-up and first pass cannot be told apart without a range or a scope
)
FAULTY = [n for n in names("-faulty", "-faulty-bare", "-faulty-whole", "-faulty-whole-bare") if n != UNTELLABLE]
HEALTHY = names("-mended", "-mended-whole", "-mended-whole-bare")


def found(trace: Trace) -> tuple[str, ...]:
    return tuple(f.id for f in find.find([scene(trace)]))


def without_ranges(trace: Trace) -> Trace:
    return replace(trace, ranges=trace.ranges.iloc[:0])


def test_every_fault_and_control_is_recorded() -> None:
    assert len(FAULTY) >= 28 and len(HEALTHY) >= 28
    seen = {EXPECTED.get(n.split("-faulty")[0], n.split("-faulty")[0]) for n in FAULTY}
    made = {"dropped-records", "profiler-overhead"}  # planted below: no program makes a profiler lose records
    assert seen | made == {rule.__name__.replace("_", "-") for rule in find.RULES}


@pytest.mark.parametrize("name", FAULTY)
def test_the_planted_fault_is_named_first(name: str) -> None:
    fault = name.split("-faulty", maxsplit=1)[0]
    assert found(trace(name))[:1] == (EXPECTED.get(fault, fault),)


@pytest.mark.parametrize("name", [n for n in FAULTY if "whole" not in n])
def test_it_is_named_without_ranges_too(name: str) -> None:
    fault = name.split("-faulty", maxsplit=1)[0]
    assert found(without_ranges(trace(name)))[:1] == (EXPECTED.get(fault, fault),)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_program_is_silent(name: str) -> None:
    assert found(trace(name)) == ()
    assert found(without_ranges(trace(name))) == ()


def test_what_cannot_be_told_is_not_told() -> None:
    assert found(trace(UNTELLABLE)) == ()


@pytest.mark.parametrize("name", FAULTY)
def test_gains_are_bounded_by_what_is_idle_or_exposed(name: str) -> None:
    judged = scene(trace(name))
    exposed = int(judged.exposed["exposed_ns"].sum())
    assert len(find.find([judged])) >= 1
    for finding in find.find([judged]):
        narrow = finding.id in (
            "low-concurrency", "serialized-streams", "legacy-default-stream", "migration-stall", "copy-like-kernels",
        )  # fmt: skip
        bound = judged.compute_ns if narrow else judged.idle_ns
        if finding.id == "exposed-communication":
            bound = judged.judged.ledger.exposed_comm_ns
        if finding.id == "slow-loading":
            bound = finding.evidence["loading_ns"]
        if finding.id == "first-iteration":
            first = judged.focus.warm_up or (judged.focus.spans or (None,))[0]
            start, end = first or (judged.host.start - 10**9, judged.focus.end_ns)
            bound = judged.view.busy.gaps(start, end).total_ns
        assert (
            0
            < finding.gain_ns
            <= bound + exposed + judged.owned(judged.view.owners[3]) + (judged.idle_ns if narrow else 0)
        )


def test_claims_are_near_what_mending_gained() -> None:
    from fault_table import rows

    table = rows(FAULTS)
    assert len(table) >= 20 and set(table["mended"]) == {"silent"}
    ratio = table["claimed"] / table["measured, traced"]
    # slow-loading: 0.6 of its 2.1 s lie between the last copy and the first step, inside no CUDA call
    least = table["fault"].map({"slow-loading": 0.75}).fillna(0.8)
    assert (ratio.ge(least) & ratio.le(1.15)).all(), table[["fault", "claimed", "measured, traced"]]


def changed(name: str, tmp_path: Path, *statements: str) -> Trace:
    target = tmp_path / "changed.sqlite"
    shutil.copyfile(path(name), target)
    with closing(sqlite3.connect(target)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return read(target)


@pytest.mark.parametrize("name", ["host-bound-faulty", "sync-item-faulty", "graph-opportunity-faulty"])
def test_dropped_records_come_first(tmp_path: Path, name: str) -> None:
    damaged = changed(name, tmp_path, "DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE rowid % 3 = 1")
    assert found(damaged)[0] == "dropped-records"


def test_launches_inside_a_stream_capture_are_not_dropped(tmp_path: Path) -> None:
    delete = "DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE rowid % 3 = 1"
    names = "INSERT INTO StringIds VALUES (999001, 'cudaStreamBeginCapture_v10000'), (999002, 'cudaStreamEndCapture_v10000')"
    span = (
        "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT {at}, {at}, eventClass, globalTid, 999000 + {n}, 999000 + {n}, "
        "returnValue, callchainId FROM CUPTI_ACTIVITY_KIND_RUNTIME LIMIT 1"
    )
    first, last = (
        "(SELECT MIN(start) - 9 FROM CUPTI_ACTIVITY_KIND_RUNTIME)",
        "(SELECT MAX(end) FROM CUPTI_ACTIVITY_KIND_RUNTIME)",
    )
    capture = [span.format(at=first, n=1), span.format(at=last, n=2)]
    assert "dropped-records" not in found(changed("host-bound-faulty", tmp_path, delete, names, *capture))


def test_profiler_overhead_comes_first(tmp_path: Path) -> None:
    overhead = (
        "INSERT INTO PROFILER_OVERHEAD (start, end, globalTid, nameId, returnValue) SELECT k.end, k.end + 450000, r.globalTid, r.nameId, 0 FROM "
        "CUPTI_ACTIVITY_KIND_KERNEL k JOIN CUPTI_ACTIVITY_KIND_RUNTIME r ON r.correlationId = k.correlationId"
    )
    assert found(changed("host-bound-faulty", tmp_path, overhead))[0] == "profiler-overhead"


def test_a_whole_trace_is_judged_where_it_repeats() -> None:
    whole = trace("sync-api-faulty-whole-bare")
    judged = scene(whole).focus
    assert judged.label == "the part that repeats" and judged.pieces.total_ns < 0.7 * (
        whole.ops["end_ns"].max() - whole.ops["start_ns"].min()
    )
    assert focus(trace("sync-api-faulty-whole"), scene(trace("sync-api-faulty-whole")).view).label == "step x 10"


def test_a_repeated_range_that_holds_little_is_no_loop() -> None:
    whole = trace("far-ahead-mended")
    calls = whole.calls.iloc[whole.ops["call"].iloc[[10, 200, 390]]]
    few = whole.ranges.iloc[:3].assign(start_ns=calls["start_ns"].to_numpy(), end_ns=calls["end_ns"].to_numpy())
    judged, by_launches = (scene(replace(whole, ranges=r)).focus for r in (few, whole.ranges.iloc[:0]))
    assert judged.label == by_launches.label == "period x 200" and len(judged.spans) == 200
    assert judged.spans == by_launches.spans, "the range decides nothing"
    assert scene(whole).focus.label == "step x 10"


@pytest.mark.parametrize("name", FAULTY + HEALTHY)
def test_the_queue_model_gives_back_what_was_measured(name: str) -> None:
    judged = scene(trace(name))
    assert judged.gain() == 0
    assert judged.gain(device=judged.work) >= judged.gain(device=judged.work // 2) > 0


@pytest.mark.parametrize("name", FAULTY + HEALTHY)
def test_causes_sum_to_idle_and_exposed_time(name: str) -> None:
    window = analysis_of(trace(name)).windows[0]
    for cause in ("launch", "sync", "host", "dependency"):
        assert sum(c.total_ns for c in window.idle_causes if c.cause == cause) == getattr(window.idle, f"{cause}_ns")
    totals: dict[str, int] = {}
    for copies in window.copies:
        for cause, ns in copies.why_exposed.items():
            totals[cause] = totals.get(cause, 0) + ns
    told = {c: sum(x.total_ns for x in window.exposed_causes if x.cause == c) for c in totals}
    assert told == totals and all(
        c.try_ and c.what and c.longest_ns <= c.total_ns for c in window.idle_causes + window.exposed_causes
    )


def test_narrow_communication_is_no_low_concurrency(traces: Path) -> None:
    for name in ("hta_diff_control", "hta_diff_test", "vllm_decode_graph", "h100_qwen"):
        assert "low-concurrency" not in found(read(traces / "kineto" / f"{name}.json.gz"))


def with_waits(whole: Trace, ends: np.ndarray) -> Trace:
    """The trace with a blocking call after each launch call, to ``ends`` or to just before the thread's next call."""
    calls = whole.calls
    launches = calls.iloc[whole.ops["call"]]
    following = calls["start_ns"].to_numpy()[np.minimum(whole.ops["call"].to_numpy() + 1, len(calls) - 1)]
    begin = launches["end_ns"].to_numpy() + 1
    waits = launches.assign(start_ns=begin, end_ns=np.maximum(begin, np.minimum(ends, following - 1)), correlation=-1)
    kinds = calls["kind"].cat.categories.union(["sync"])
    calls = calls.assign(kind=calls["kind"].cat.set_categories(kinds))
    waits = waits.assign(kind=pd.Categorical(["sync"] * len(waits), categories=kinds))
    both = pd.concat([calls, waits], ignore_index=True)
    order = np.lexsort((both["end_ns"], both["start_ns"]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return replace(
        whole, calls=both.iloc[order].reset_index(drop=True), ops=whole.ops.assign(call=place[whole.ops["call"]])
    )


def test_a_busy_host_is_named_before_the_wait_in_front_of_it() -> None:
    whole = trace("host-bound-faulty")
    assert found(with_waits(whole, whole.ops["end_ns"].to_numpy() + 5_000))[0] == "host-bound"


def test_tiny_copies_one_after_another_are_named_though_the_host_waits_for_each() -> None:
    whole = trace("tiny-copies-faulty")
    waiting = with_waits(whole, whole.ops["end_ns"].to_numpy() + 500)
    assert scene(waiting).view.host_waited.mean() > 0.5
    assert found(waiting)[0] == "tiny-copies"


def test_a_copy_that_blocks_the_host_is_a_wait_first() -> None:
    assert found(trace("blocking-copy"))[0] == "sync-api"


def test_a_first_pass_that_is_a_little_slower_is_nothing() -> None:
    whole = trace("graph-replays-mended")
    first = whole.ranges["start_ns"].idxmin()
    for early, expected in ((1_200_000, ()), (9_000_000, ("first-iteration",))):
        starts = whole.ranges["start_ns"].copy()
        starts[first] -= early
        assert found(replace(whole, ranges=whole.ranges.assign(start_ns=starts))) == expected


def test_ranges_can_be_judged_alone() -> None:
    analysis = analysis_of(trace("sync-item-faulty"), "step")
    assert [f.id for f in analysis.findings] == ["sync-api"] and analysis.findings[0].where == "device 0, step x 10"


OWN = """
from moeprof.findings.rules.common import finding

def long_kernels(scene):
    lengths = scene.view.ends[scene.index] - scene.view.starts[scene.index]
    return finding("long-kernels", scene, int(lengths.max()), "one kernel takes {ms}", "split it", share=0.0)

RULES = [long_kernels]
"""


def test_a_users_rules_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    ran = CliRunner().invoke(cli, ["analyze", str(path("far-ahead-mended")), "--rules", str(file), "--json"])
    assert [f["id"] for f in json.loads(ran.stdout)["findings"]] == ["long-kernels"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RULES = 3", "no list RULES"),
        ("import nowhere", "does not run: ModuleNotFoundError"),
        ("def broken(scene):\n    return 1 / 0\nRULES = [broken]", "your rule broken failed: ZeroDivisionError"),
        ("def odd(scene):\n    return 'x'\nRULES = [odd]", "your rule odd returned a str"),
    ],
)
def test_a_bad_rules_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        find.find([scene(trace("far-ahead-mended"))], find.load(file))
    with pytest.raises(UsageError, match="there is no rules file"):
        find.load(tmp_path / "none.py")


def test_recordings_hold_no_secrets() -> None:
    for name in ("startend", "sync-api-faulty"):
        data = path(name).read_bytes()
        assert b"/home/" not in data and b"PATH=" not in data and b"TOKEN" not in data
    assert recordings.FOLDER.is_dir()


def test_times_of_recorded_programs_are_added_as_the_table_reads_them(tmp_path: Path) -> None:
    record_faults = pytest.importorskip("record_faults", reason="torch is not installed")
    path = tmp_path / "times.json"
    record_faults.keep_times(path, [{"b": {"faulty": 2.0, "mended": 1.0}}])
    record_faults.keep_times(path, [{"a": {"faulty": 3.0, "mended": 1.0}}, {"b": {"mended": 0.5}}])
    assert json.loads(path.read_text())["times"] == {"a": {"faulty": 3.0, "mended": 1.0}, "b": {"mended": 0.5}}
    assert json.loads(path.read_text()).keys() == json.loads((FAULTS / "times.json").read_text()).keys()


def test_a_report_of_nsys_with_other_columns_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compare_with_nsys

    monkeypatch.setattr(compare_with_nsys, "stats", lambda nsys, given: {"cuda_gpu_kern_sum": [{"Kernel": "k"}]})
    monkeypatch.setattr(compare_with_nsys, "read", lambda given: None)
    with pytest.raises(ToolError, match="cuda_gpu_kern_sum has other columns: Kernel"):
        compare_with_nsys.compare(Path("nsys"), tmp_path)
