"""The traces of ranks that are kept: a rank that left none, or not all, is named, and the others' traces stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import kineto_trace, nsys_export

from moeprof.capture import ranks, validate
from moeprof.capture.commands import ToolRun
from moeprof.capture.jobs import Job
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Plan
from moeprof.capture.profiling import Ended
from moeprof.capture.request import Request
from moeprof.errors import CaptureError
from moeprof.machine.launcher import Team
from moeprof.storage.capture_folder import Store
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Environment, Manifest, Rank, VariantRecord
from moeprof.worker import failures, messages
from moeprof.worker.clock_offset import Offset
from moeprof.worker.failures import RankError
from moeprof.worker.messages import ErrorReply, Measured, RunResult
from moeprof.workload.model import Proof

ITERATIONS = 3


def store_of(folder: Path, ranks: int) -> Store:
    environment = Environment("0", "3", "L", "c", 16)
    record = VariantRecord("v", "", "pending")
    store = Store(
        folder / "cap",
        Manifest(1, "workload", "w", "2026", (), "cpu", environment, ranks=ranks, variants=(record,)),
    )
    store.open()
    return store


def trace(path: Path) -> None:
    plain = kineto_trace.small(path.with_suffix(".made.json"), ITERATIONS)
    path.write_text(plain.read_text().replace('"step"', '"moeprof:iteration:0"'))


def kept(folder: Path, team: Team, host: int, left: tuple[int, ...]) -> tuple[Store, Callable[[], None]]:
    """A host's store, and what keeps the traces that the ranks ``left`` there."""
    plan = Plan(Request("w", iterations=ITERATIONS), "cpu", (), torch=True, team=team, host=host)
    store = store_of(folder, team.ranks)
    out = store.scratch / "v-kineto.json"
    for rank in left:
        trace(out if rank == 0 else out.with_name(f"v-kineto.rank{rank}.json"))
    job = Job("v", "torch", ToolRun(None, ("worker",), out, 60), None, store.scratch / "result.json")
    processes = tuple(Measured(rank, 100 + rank, host=host) for rank in team.of_host(host))
    return store, lambda: Parts(plan, store).keep(job, Ended(0, "nothing", processes))


@pytest.mark.parametrize(
    ("layout", "host", "left", "files", "who"),
    [
        ((2,), 0, (0,), ["v/trace.json.gz"], "rank 1 of 2 ended without a trace: it left no v-kineto.rank1.json"),
        ((1, 2), 1, (1,), ["v/trace.rank1.json.gz"], "rank 2 of 3 (host 1) ended without a trace: it left no"),
    ],
)
def test_a_rank_that_left_no_trace_is_named_and_the_others_are_kept(
    tmp_path: Path, layout: tuple[int, ...], host: int, left: tuple[int, ...], files: list[str], who: str
) -> None:
    store, keep = kept(tmp_path, Team(layout), host, left)
    with pytest.raises(RankError) as error:
        keep()
    assert str(error.value).startswith(who) and error.value.exit_code == 5
    record = store.variant("v")
    assert [(part.file, part.host) for part in record.parts] == [(file, host) for file in files]
    assert [rank.status for rank in record.ranks] == ["ok", "failed"]
    assert record.ranks[1].reason == str(error.value)


def test_a_further_host_without_any_trace_names_its_first_rank(tmp_path: Path) -> None:
    plan = Plan(Request("w", iterations=ITERATIONS), "cpu", (), torch=True, team=Team((1, 2)), host=1)
    store = store_of(tmp_path, 3)
    job = Job("v", "torch", ToolRun(None, ("worker",), store.scratch / "v.json", 60), None, store.scratch / "r.json")
    with pytest.raises(RankError, match=r"rank 1 of 3 \(host 1\) ended without a trace: the traced process ended"):
        Parts(plan, store).keep(job, Ended(3, "nothing", (Measured(1, 101, host=1),)))


@pytest.mark.parametrize(
    ("clocks", "offset", "uncertainty", "drift"),
    [
        ((Offset(100, 10), Offset(120, 20)), 115, 25, 20),
        ((None, Offset(120, 20)), None, 0, 0),
        ((None, None), None, 0, 0),
    ],
)
def test_a_further_host_s_clock_is_that_of_before_and_after_the_run(
    tmp_path: Path, clocks: tuple[Offset | None, ...], offset: int | None, uncertainty: int, drift: int
) -> None:
    store = store_of(tmp_path, 3)
    ranks.started(store, "v", [Measured(rank, 100 + rank, host=int(rank > 0)) for rank in range(3)])
    ranks.clocked(store, "v", 1, *clocks)
    known = [(r.clock_offset_ns, r.clock_uncertainty_ns, r.clock_drift_ns) for r in store.variant("v").ranks]
    assert known == [(0, 0, 0), *[(offset, uncertainty, drift)] * 2]


def test_every_rank_s_trace_is_a_part(tmp_path: Path) -> None:
    store, keep = kept(tmp_path, Team((2,)), 0, (0, 1))
    keep()
    assert [(part.file, part.rank) for part in store.variant("v").parts] == [
        ("v/trace.json.gz", 0),
        ("v/trace.rank1.json.gz", 1),
    ]


def test_a_rank_that_left_nothing_in_the_report_of_nsys_is_named(tmp_path: Path) -> None:
    export = tmp_path / "t.sqlite"
    expected = (Rank(0, pid=100), Rank(1, pid=101))
    nsys_export.make_export(export, ITERATIONS, pids=(100, 101))
    assert validate.ranks(export, ITERATIONS, expected, Team((2,)))[1] is None
    nsys_export.make_export(export, ITERATIONS, pids=(100,))
    lacking: Any = validate.ranks(export, ITERATIONS, expected, Team((2,)))[1]
    assert lacking.message == "rank 1 of 2 left 0 iteration ranges in the trace, 3 ran" and lacking.failure.rank == 1
    far = tuple(replace(rank, rank=rank.rank + 1, host=1) for rank in expected)
    lacking = validate.ranks(export, ITERATIONS, far, Team((1, 2)))[1]
    assert lacking.message.startswith("rank 2 of 3 (host 1) left 0 iteration ranges")
    nsys_export.make_export(export, ITERATIONS, pids=(101,))
    with pytest.raises(CaptureError, match="3 ran in each of 2 ranks"):
        validate.ranks(export, ITERATIONS, expected, Team((2,)))


def test_a_rank_that_failed_is_reported_before_whatever_the_tool_says(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    plan = Plan(Request("w", iterations=ITERATIONS), "cuda", (), team=Team((2,)))
    died = replace(failures.death(1, 7, "nothing", 1.0), ranks=2, phase="in the traced run")
    line = messages.line(ErrorReply.of(RankError(died)))
    store.log("v", "nsys").write_text(f"noise\n{line}\nGenerated:\n\tNo reports were generated\n")
    job = Job("v", "nsys", ToolRun(None, ("nsys",), store.scratch / "v.nsys-rep", 60), None, store.scratch / "r.json")
    with pytest.raises(RankError, match=r"rank 1 of 2 died in the traced run \(exit status 7\)"):
        Parts(plan, store).keep(job, Ended(0, "No reports were generated"))
    job.result.write_text(dumps(RunResult(3, Proof(True, "all", 0.0, 0.0), (Measured(0, 1), Measured(1, 2)))))
    assert json.loads(job.result.read_text())["ranks"]


def test_a_failure_reaches_the_manifest_whole() -> None:
    died = replace(failures.death(2, -9, "last line", 1.0), ranks=4, host=1, phase="in build", hint="read the log")
    error = messages.reply(messages.line(ErrorReply.of(RankError(died))))
    assert isinstance(error, ErrorReply)
    raised = error.exception("v: ")
    assert isinstance(raised, RankError) and raised.failure == died and raised.hint == "read the log"
    assert str(raised) == "v: rank 2 of 4 (host 1) died in build (killed by SIGKILL); it last printed: last line"
