"""Where hosts meet, what rank 0 decides and the others follow, and how far their clocks are apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import store

from moeprof.capture import host_part, hosts
from moeprof.capture.child_processes import Child
from moeprof.capture.host_part import HostPart
from moeprof.capture.hosts import Decision, Hello, Hosts, Meeting, PartReport, VariantFailure
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Plan
from moeprof.capture.request import Request
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine import launcher
from moeprof.machine.command import Command
from moeprof.machine.launcher import Place, Rendezvous, Team
from moeprof.storage.json import decode, encode
from moeprof.worker import clock_offset
from moeprof.worker.channel import JsonStore
from moeprof.worker.clock_offset import Anchor, Exchange, Offset
from moeprof.worker.failures import Failure
from moeprof.worker.messages import Measured

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
        ({}, "mpirun does not tell the address of rank 0's host"),
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


HELLOS = [Hello(rank, 2, {"name": "w", "tracer": "nsys"}, {"driver": "1", "torch": "2"}) for rank in (0, 2)]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"rank": 1}, UsageError, "rank 1 is the first of its host, 2 was expected"),
        ({"local_ranks": 1}, UsageError, "host 1 has 1 ranks, 2 were expected"),
        ({"plan": {"name": "w", "tracer": "torch"}}, UsageError, "host 1 has tracer 'torch', rank 0's host 'nsys'"),
        ({"plan": {"name": "w"}}, UsageError, "host 1 has tracer None, rank 0's host 'nsys'"),
        ({"version": "0"}, UsageError, "host 1 has version '0', rank 0's host"),
        ({"error": "there is no CUDA GPU here", "hint": "x"}, ToolError, "host 1: there is no CUDA GPU here"),
    ],
)
def test_hosts_must_be_alike(change: dict[str, Any], error: type[MoeprofError], said: str) -> None:
    hosts.check_alike(Team((2, 2)), HELLOS)
    with pytest.raises(error, match=said):
        hosts.check_alike(Team((2, 2)), [HELLOS[0], replace(HELLOS[1], **change)])


def test_what_a_host_has_otherwise_is_told() -> None:
    machine = {"driver": "9", "torch": "2", "nccl": "5"}
    third = replace(HELLOS[1], rank=4, machine=machine)
    assert hosts.unlike([*HELLOS, third]) == {2: "driver 9, here 1; nccl 5, here none"}


def exchange(
    layout: tuple[int, ...], changes: dict[int, dict[str, Any]], timeout_s: float = 10, absent: tuple[int, ...] = ()
) -> dict[int, Any]:
    """What each host that comes has of the meeting: all hellos, or its error."""
    shared, team, results = store(), Team(layout, "a", 7), dict[int, Any]()

    def run(host: int) -> None:
        def prepare(first: Hello | None) -> tuple[Hello, str]:
            given = dict(changes.get(host, {}))
            if raised := given.pop("raises", None):
                raise raised
            named = "cap" if first is None else first.folder
            return replace(Hello(team.first(host), layout[host], {"name": "w"}, folder=named), **given), named

        try:
            results[host] = Meeting(shared, team, host, timeout_s).exchange(prepare)
        except MoeprofError as error:
            results[host] = error

    threads = [threading.Thread(target=run, args=(host,)) for host in range(len(layout)) if host not in absent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_every_host_has_what_all_report() -> None:
    results = exchange((2, 1, 1), {})
    assert [[hello.rank for hello in hellos] for hellos, _ in results.values()] == [[0, 2, 3]] * 3
    assert [name for _, name in results.values()] == ["cap"] * 3, "rank 0's host names the capture"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({1: {"plan": {"name": "v"}}}, "host 1 has name 'v', rank 0's host 'w'"),
        ({2: {"rank": 1}}, "rank 1 is the first of its host, 2 was expected"),
    ],
)
def test_hosts_that_do_not_fit_say_the_same_everywhere(changes: dict[int, dict[str, Any]], said: str) -> None:
    results = exchange((2, 1, 1), changes)
    assert len(results) == 3 and all(said in str(error) and error.exit_code == 2 for error in results.values())


@pytest.mark.parametrize("host", [0, 1])
def test_why_a_host_cannot_take_part_is_known_everywhere(host: int) -> None:
    results = exchange((1, 1), {host: {"raises": ToolError("torch is not installed", "install it")}})
    assert str(results[host]) == "torch is not installed"
    assert str(results[1 - host]) == f"host {host}: torch is not installed" and results[1 - host].hint == "install it"


def test_a_host_that_does_not_come_is_named() -> None:
    results = exchange((2, 3, 1), {}, timeout_s=0.5, absent=(1,))
    assert {str(error) for error in results.values()} == {"host 1 (ranks 2 to 4) did not join at a:7 within 0 s"}


class Ended:
    """A process that has ended."""

    def __init__(self, status: int) -> None:
        self.status = status

    def wait(self) -> int:
        return self.status


def decisions(shared: JsonStore) -> list[tuple[str, str, bool]]:
    found = [decode(Decision, shared.wait(f"decision/{n + 1}")) for n in range(shared.add("decisions", 0))]
    return [(decision.kind, decision.room, decision.ok) for decision in found]


def led(shared: JsonStore, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setattr(hosts, "CLOCK_S", 0.05)
    monkeypatch.setattr(hosts, "READ_S", 1.0)
    return Hosts(Team((1, 1, 1)), shared, tuple(HELLOS))


def test_rank_0_publishes_what_it_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared, result = store(), tmp_path / "result.json"
    result.touch()
    leading = led(shared, monkeypatch)
    for room, status, file in (("a-clean", 0, None), ("b-clean", 5, None), ("a-torch", 0, result)):
        leading.start(Ended(status), room, file)  # type: ignore[arg-type]
        leading._rooms[room].join()
    leading.keep("a-torch", 1, (Measured(1, 77, host=1),))
    shared.put("part/1", encode(PartReport((VariantFailure("a", Failure(1, "untraced", message="x")),))))
    shared.put("room/b-clean/left/2", 0)
    reports = leading.finish(True, 5)
    assert list(reports) == [1] and reports[1].failures[0].failure.rank == 1, (
        "the part of a capture that left is not waited for"
    )
    assert decisions(shared) == [
        ("clock", "", True),
        ("start", "a-clean", True),
        ("over", "a-clean", True),
        ("start", "b-clean", True),
        ("over", "b-clean", False),
        ("start", "a-torch", True),
        ("over", "a-torch", True),
        ("end", "", True),
    ]


def part(shared: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HostPart, list[Child]]:
    """A host whose runs are processes that do nothing until they are ended."""
    runs: list[Child] = []

    def child(command: Command, log: Path) -> Child:
        sleeping = (sys.executable, "-c", "import time; time.sleep(100)")
        runs.append(Child(replace(command, argv=sleeping), log))
        return runs[-1]

    monkeypatch.setattr(host_part, "Child", child)
    team = Team((1, 1), "127.0.0.1", 1)
    variants: Any = (SimpleNamespace(name="a"), SimpleNamespace(name="b"))
    plan = Plan(Request("w"), "cpu", (), variants=variants, team=team)
    folder_: Any = SimpleNamespace(log=lambda variant, kind: folder / f"{variant}-{kind}.log", scratch=folder)
    return HostPart(plan, Parts(plan, folder_, host=1), shared), runs


def publish(shared: JsonStore, *given: Decision) -> None:
    for decision in given:
        shared.put(f"decision/{shared.add('decisions', 1)}", encode(decision))


def test_a_host_follows_what_rank_0_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = store()
    following, runs = part(shared, tmp_path, monkeypatch)
    publish(shared, Decision("start", "a-clean"), Decision("start", "b-clean"), Decision("over", "b-clean", ok=False))
    publish(shared, Decision("over", "a-clean", ok=False), Decision("end"))
    assert following.follow() and len(runs) == 2 and all(run.process.poll() is not None for run in runs)
    following.report()
    assert shared.has("part/1") and not shared.has("left/1")


def test_a_run_that_this_host_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = store()
    following, runs = part(shared, tmp_path, monkeypatch)
    publish(shared, Decision("start", "a-clean"), Decision("start", "../../bin/x-clean"))
    with pytest.raises(UsageError, match="unknown run"):
        following.follow()
    assert runs[0].process.poll() is not None, "nothing outlives it"
    assert shared.has("left/1"), "rank 0 need not wait for this part"


def test_a_host_ends_when_the_store_of_rank_0_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = store()
    following, runs = part(shared, tmp_path, monkeypatch)
    publish(shared, Decision("start", "a-clean"))
    threading.Timer(0.5, lambda: setattr(shared.raw, "gone", True)).start()
    with pytest.raises(WorkloadError, match="the capture of rank 0 is gone"):
        following.follow()
    assert runs[0].process.poll() is not None


@pytest.mark.parametrize("name", ["../cap", "a/b", "", ".hidden", "/tmp/x"])
def test_what_comes_through_the_store_names_no_path(name: str) -> None:
    assert hosts.part_folder(Path("out/x"), "cap-001", 1) == Path("out/cap-001.host1")
    with pytest.raises(UsageError):
        hosts.part_folder(Path("out/x"), name, 1)


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


@pytest.mark.parametrize("refused", [False, True])
def test_the_end_of_a_process_that_is_no_child_is_seen(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.worker import head

    if refused:
        monkeypatch.setattr(os, "pidfd_open", lambda pid: (_ for _ in ()).throw(PermissionError(pid)))
    seen = threading.Event()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:

        def wait() -> None:
            head.until_ended(process.pid)
            seen.set()

        threading.Thread(target=wait, daemon=True).start()
        assert not seen.wait(0.5)
        process.kill()
        assert seen.wait(10), "it has ended, though nobody waited for it"
    head.until_ended(process.pid)
