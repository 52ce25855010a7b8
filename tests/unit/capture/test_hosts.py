"""Where hosts meet, what rank 0 decides and the others follow, and how far their clocks are apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import store

from moeprof.capture import hosts
from moeprof.capture.hosts import Beginning, Decision, Hosts, Over, Report, part_folder
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine import launcher
from moeprof.machine.launcher import Place, Rendezvous, Team
from moeprof.worker import clock_offset, processes
from moeprof.worker.channel import Channel, JsonStore
from moeprof.worker.clock_offset import Anchor, Exchange, Offset
from moeprof.worker.failures import Position
from moeprof.worker.messages import ErrorReply, Measured

SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "41234",
}


def test_hosts_may_differ_where_slurm_tells() -> None:
    found = launcher.place(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4,3"})
    assert found == Place("srun", 5, 7, 1, 3, (4, 3)) and found.layout == (4, 3) and found.hosts == 2
    even = launcher.place(SRUN | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"})
    assert even is not None and even.layout == (4, 4) and even.told == ()
    with pytest.raises(UsageError, match=r"7 ranks, and 4\+4\+3 on its hosts"):
        launcher.place(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"})


def test_a_team_knows_its_hosts() -> None:
    team = Team((4, 3, 1))
    assert (team.ranks, team.first(2), list(team.of_host(1))) == (8, 7, [4, 5, 6])
    assert [team.host(rank) for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 2]
    assert team.host_shown(5) == 1 and Team((2,)).host_shown(1) is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MASTER_ADDR": "a", "MASTER_PORT": "29400"}, Rendezvous("a", 29400)),
        (
            {
                "MASTER_ADDR": "a",
                "MASTER_PORT": "7",
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "2",
            },
            Rendezvous("a", 7, True, "2"),
        ),
        ({"SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "41234"}, Rendezvous("gpu07", 29500)),
        ({"MASTER_ADDR": "a"}, Rendezvous("a", 29500)),
    ],
)
def test_hosts_meet_where_torch_distributed_does(environment: dict[str, str], expected: Rendezvous) -> None:
    assert launcher.rendezvous("srun", environment) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "mpirun does not report the address of rank 0's host"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT='x' is no port"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "65536"}, "MASTER_PORT='65536' is no port"),
    ],
)
def test_hosts_that_cannot_tell_where_they_meet(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        launcher.rendezvous("mpirun", environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("n[01-04,07],x3", "n01"),
        ("a,b", "a"),
        ("r[2]-ib", "r2-ib"),
        ("", ""),
        ("n[003,005]", "n003"),
    ],
)
def test_the_first_node_of_slurm_s_list(nodes: str, first: str) -> None:
    assert launcher.first_node(nodes) == first


delays = st.integers(0, 10**9)


@given(st.integers(-(10**18), 10**18), st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=20))
def test_the_interval_of_an_offset_holds_the_truth_whatever_the_delays(
    truth: int, taken: list[tuple[int, int, int]]
) -> None:
    exchanges = []
    for there, within, back in taken:
        sent = 10**18 + truth
        heard = 10**18 + there
        exchanges.append(Exchange(sent, heard, heard + within, sent + there + within + back))
    found = clock_offset.ahead(exchanges)
    least = min(there + back for there, _, back in taken)
    assert found.least <= truth <= found.most
    assert least <= 2 * found.uncertainty_ns <= least + 2, "give or take half the least round trip"


@given(
    st.integers(-(10**15), 10**15),
    st.integers(-(10**7), 10**7),
    st.floats(0, 1),
    st.lists(st.tuples(delays, delays), min_size=2, max_size=2),
)
def test_an_offset_holds_all_the_while_though_a_clock_drifts(
    start: int, drift: int, when: float, ways: list[tuple[int, int]]
) -> None:
    ends = [
        clock_offset.ahead([Exchange(truth, there, there, truth + there + back)])
        for truth, (there, back) in zip((start, start + drift), ways, strict=True)
    ]
    held = clock_offset.throughout(*ends)
    truth = start + round(drift * when)
    assert held.least <= truth <= held.most


@given(
    st.integers(0, 10**18), st.integers(-(10**5), 10**5),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**5), st.integers(0, 10**5)), min_size=2, max_size=16),
)  # fmt: skip
def test_a_trace_s_zero_lies_where_its_anchors_say(zero: int, drift: int, pushed: list[tuple[int, int, int]]) -> None:
    pushed = sorted(pushed)
    middle = (len(pushed) + 1) // 2
    pairs = []
    for number, (at, early, late) in enumerate(pushed):
        wall = zero + at + (drift if number >= middle else 0)  # the host's clock gained on the trace's in between
        pairs.append((Anchor(wall - early, wall + late), at))
    found = clock_offset.zero(pairs)
    assert found is not None
    assert found.least <= zero <= found.most and found.least <= zero + drift <= found.most
    assert clock_offset.zero([]) is None


FACTS = {"workload": "w", "tracer": "nsys"}


def place(rank: int, layout: tuple[int, ...] = (2, 2, 2), local_rank: int = 0) -> Place:
    ranks = sum(layout)
    return Place("srun", rank, ranks, local_rank, layout[0], layout if len(set(layout)) > 1 else ())


@pytest.mark.parametrize(
    ("where", "change", "said"),
    [
        (place(1), {}, "rank 1 is the first of its host, 2 or 4 was expected"),
        (place(2), {"ranks of hosts": [1, 1]}, "ranks of hosts \\[1, 1\\], none on rank 0's host"),
        (place(2), {"tracer": "torch"}, "tracer torch, nsys on rank 0's host"),
        (place(2), {"tracer": None}, "tracer None, nsys on rank 0's host"),
        (place(2), {"moeprof": "0"}, "moeprof 0, none on rank 0's host"),
    ],
)
def test_hosts_must_be_alike(where: Place, change: dict[str, Any], said: str) -> None:
    hosts.check_alike(place(2), FACTS, FACTS)
    with pytest.raises(UsageError, match=said):
        hosts.check_alike(where, FACTS | change, FACTS)


def test_what_a_host_has_otherwise_is_told() -> None:
    ours, theirs = {"driver": "9", "torch": "2", "nccl": "5"}, {"driver": "1", "torch": "2"}
    assert hosts.differences(ours, theirs) == "driver 9, 1 on rank 0's host; nccl 5, none on rank 0's host"
    assert hosts.differences(theirs, theirs) == ""


def host_of(shared: JsonStore, number: int, layout: tuple[int, ...] = (1, 1), timeout_s: float = 10) -> Hosts:
    first = Team(layout).first(number)
    where = Place("srun", first, sum(layout), 0, layout[number], layout)
    return Hosts(shared.again(), Team(layout, "a", 7), where, timeout_s)


def agreed(
    layout: tuple[int, ...], changes: dict[int, dict[str, Any]], timeout_s: float = 10, absent: tuple[int, ...] = ()
) -> dict[int, Any]:
    """What each host that comes has of the agreement, or its error: rank 0's beginning, what it prepared, and what rank 0's host
    knows of the others."""
    shared, results = store(), dict[int, Any]()

    def run(number: int) -> None:
        def prepare(first: Beginning | None) -> tuple[Beginning, str]:
            given = dict(changes.get(number, {}))
            if raised := given.pop("raises", None):
                raise raised
            machine = given.pop("machine", {})
            return Beginning("cap", f"id{number}", {"workload": "w"} | given, machine), first.folder if first else ""

        mine = host_of(shared, number, layout, timeout_s)
        if number in changes and "rank" in changes[number]:
            mine.place = replace(mine.place, rank=changes[number].pop("rank"))
        try:
            results[number] = *mine.agree(prepare), mine.reports
        except MoeprofError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(host,)) for host in range(len(layout)) if host not in absent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_only_rank_0_s_host_leads() -> None:
    assert [Place("srun", rank, 4, rank % 2, 2).host for rank in (0, 1, 2)] == [0, 0, 1]
    assert Place("srun", 1, 4, 0, 2).host == 1, "ranks that go round the hosts, which are refused later"


def test_every_host_begins_rank_0_s_capture() -> None:
    results = agreed((2, 1, 1), {0: {"machine": {"driver": "1"}}, 2: {"machine": {"driver": "2"}}})
    assert [results[host][0].capture_id for host in range(3)] == ["id0"] * 3
    assert [results[host][1] for host in range(3)] == ["", "cap", "cap"], "rank 0's host names the capture"
    differs = {host: report.differs for host, report in results[0][2].items()}
    assert differs == {1: "driver none, 1 on rank 0's host", 2: "driver 2, 1 on rank 0's host"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({1: {"workload": "v"}}, "workload v, w on rank 0's host"),
        ({2: {"rank": 1}}, "rank 1 is the first of its host, 2 or 3 was expected"),
    ],
)
def test_hosts_that_do_not_fit_say_the_same_everywhere(changes: dict[int, dict[str, Any]], said: str) -> None:
    results = agreed((2, 1, 1), changes)
    assert len(results) == 3 and all(said in str(error) and error.exit_code == 2 for error in results.values())


@pytest.mark.parametrize("host", [0, 1])
def test_why_a_host_cannot_take_part_is_known_everywhere(host: int) -> None:
    results = agreed((1, 1), {host: {"raises": ToolError("torch is not installed", "install it")}})
    assert str(results[host]) == "torch is not installed"
    assert str(results[1 - host]) == f"host {host}: torch is not installed" and results[1 - host].hint == "install it"
    assert isinstance(results[1 - host], ToolError)


def test_a_host_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "READ_S", 0.5)
    results = agreed((2, 3, 1), {}, timeout_s=0.3, absent=(1,))
    assert {str(error) for error in results.values()} == {"host 1 (ranks 2 to 4) did not join at a:7 within 0 s"}


def test_a_host_reports_where_its_ranks_stand() -> None:
    shared = store()
    asking, host = (Channel(shared, rank, 4, "", 0) for rank in (0, 2))
    assert not host.asks_where()
    answering = threading.Timer(0.2, host.located, (1, (Position(2, at="/a.py:1"), Position(3, True))))
    answering.start()
    assert asking.locate({1}, 5) == {2: Position(2, at="/a.py:1"), 3: Position(3, True)}
    assert host.asks_where() and asking.locate({2}, 0.1) == {}, "of a host that gives no answer nothing is known"


class Process:
    """A process that has ended, or that runs (None)."""

    def __init__(self, status: int | None) -> None:
        self.returncode = status

    def wait(self) -> int | None:
        return self.returncode

    def poll(self) -> int | None:
        return self.returncode


def test_every_host_has_rank_0_s_decisions_in_their_order() -> None:
    shared = store()
    leading, following = host_of(shared, 0), host_of(shared, 1)
    traced = (Measured(1, 77, host=1, anchors=(Anchor(1, 2),)),)
    for decision in (Decision(variants=("a", "b")), Decision(slots=3), Decision(traced=traced)):
        assert leading.decide(decision) is decision
    assert following.decide(Decision()).variants == ("a", "b")
    assert following.decide(Decision(slots=1)).slots == 3, "rank 0's counts, not its own"
    assert following.decide(Decision()).traced == traced


@pytest.mark.parametrize("kept", [True, False])
def test_the_capture_is_over_on_every_host_wherever_it_is(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "READ_S", 1.0)
    shared = store()
    leading, following, other = (host_of(shared, number, (1, 1, 1)) for number in range(3))
    lost = ErrorReply("a: rank 1 of 3 (host 1) ended without a trace", "read it", 5)
    following.leave(Report(1, problems=(lost,)))
    other.leave(None)
    started = time.monotonic()
    assert leading.finish(kept, 20) == {1: Report(1, problems=(lost,))}
    assert time.monotonic() - started < 10, "the part of a capture that left is not waited for"
    with pytest.raises(Over) as over:
        following.decide(Decision())
    assert over.value.args == (kept,)


@pytest.mark.parametrize(("status", "left", "ok"), [(0, False, True), (5, False, False), (5, True, True)])
def test_a_run_is_over_on_every_host_when_its_leader_ends(status: int, left: bool, ok: bool, tmp_path: Path) -> None:
    shared, result = store(), tmp_path / "result.json"
    if left:
        result.touch()
    host_of(shared, 0).started(Process(status), tmp_path / "a-torch.log", result)  # type: ignore[arg-type]
    assert shared.get("a-torch/over", 5) is ok


def test_a_run_that_fails_on_a_further_host_is_reported_to_its_leader(tmp_path: Path) -> None:
    shared = store()
    following = host_of(shared, 1)
    for name, status in (("a-clean", None), ("b-clean", 0), ("c-nsys", -9)):
        following.started(Process(status), tmp_path / f"{name}.log")  # type: ignore[arg-type]
    (tmp_path / "c-nsys.log").write_text("last words")
    threading.Timer(1.2, lambda: host_of(shared, 0).decide(Decision(slots=1))).start()
    following.decide(Decision())
    assert not shared.has("a-clean/failure/1") and not shared.has("b-clean/failure/1")
    reports = Channel(shared.under("c-nsys"), 0, 2, "", 0).new_failures()
    assert [(failure.rank, failure.how, failure.message, failure.by_itself) for failure in reports] == [
        (1, "killed by SIGKILL", "last words", True)
    ]


def test_a_host_ends_when_the_store_of_rank_0_is_gone() -> None:
    shared = store()
    following = host_of(shared, 1)
    threading.Timer(0.3, lambda: setattr(shared.raw, "gone", True)).start()
    with pytest.raises(WorkloadError, match="the capture of rank 0 is gone"):
        following.decide(Decision())
    following.leave(None)


@pytest.mark.parametrize("answers", [True, False])
def test_a_host_that_does_not_measure_its_clock_is_waited_for_once(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "CLOCK_S", 0.2 if not answers else 5.0)
    shared = store()
    leading, following = host_of(shared, 0), host_of(shared, 1)
    measured: list[Offset | None] = []
    thread = threading.Thread(target=lambda: measured.extend(following.measure_clock() for _ in range(2)))
    if answers:
        thread.start()
    assert [leading.measure_clock() for _ in range(2)] == [Offset(0, 0)] * 2
    assert leading._mute == (set() if answers else {1})
    if answers:
        thread.join(10)
        assert all(offset is not None and abs(offset.ns) <= offset.uncertainty_ns for offset in measured)
        assert measured[-1] is not None and shared.get("ahead/1", 0) == measured[-1].ns


@pytest.mark.parametrize("name", ["../cap", "a/b", "", ".hidden", "/tmp/x"])
def test_what_comes_through_the_store_names_no_path(name: str) -> None:
    assert part_folder(Path("out/x"), "cap-001", 1) == Path("out/cap-001.host1")
    with pytest.raises(UsageError):
        part_folder(Path("out/x"), name, 1)


def test_a_clock_is_measured_over_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = store()
    ahead, true, main = 7_000_000_000, time.time_ns, threading.get_ident()
    monkeypatch.setattr(time, "time_ns", lambda: true() + (ahead if threading.get_ident() == main else 0))
    answering = threading.Thread(target=shared.again().answer_clock, args=("c", 10))
    answering.start()
    offset = shared.clock_offset("c")
    answering.join()
    assert offset.least <= ahead <= offset.most and offset.uncertainty_ns < 100_000_000


def test_half_an_interval_is_rounded_so_that_it_holds_both_ends() -> None:
    assert clock_offset.between(0, 3) == Offset(1, 2) and clock_offset.between(-3, 0) == Offset(-2, 2)


def test_whether_a_process_that_is_no_child_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert processes.exists(process.pid) and processes.exists(1), "also one of another user"
        process.kill()
        until = time.monotonic() + 10
        while processes.exists(process.pid):
            assert time.monotonic() < until, "it has ended, though nobody waited for it"
            time.sleep(0.01)
    assert not processes.exists(process.pid)
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError(pid)))
    assert processes.exists(process.pid), "it is there, and is not ours"
