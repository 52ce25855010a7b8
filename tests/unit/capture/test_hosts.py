"""Where hosts meet, what their letters are worth, and how far their clocks are apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.errors import MoeprofError, ToolError, UsageError
from moeprof.machine import launcher
from moeprof.machine.launcher import Place, Team
from moeprof.worker import clock_offset, host_rendezvous
from moeprof.worker.clock_offset import Anchor, Exchange, Offset
from moeprof.worker.host_rendezvous import Meeting

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
    assert team.named(5) == " (host 1)" and Team((2,)).named(1) == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MASTER_ADDR": "a", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "r"}, Meeting("a", 29501, "r")),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "29500", "MOEPROF_PORT": "7", "MOEPROF_TOKEN": "t"}, Meeting("a", 7, "t")),
        (
            {"SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "41234", "SLURM_STEP_ID": "0"},
            Meeting("gpu07", 21234, "41234.0"),
        ),
        ({"MASTER_ADDR": "a"}, Meeting("a", host_rendezvous.DEFAULT_PORT, "")),
    ],
)
def test_where_hosts_meet(environment: dict[str, str], expected: Meeting) -> None:
    assert host_rendezvous.meeting("srun", environment) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "mpirun does not tell the address of rank 0's host"),
        ({"MASTER_ADDR": "a", "MOEPROF_PORT": "x"}, "MOEPROF_PORT='x' leaves no port"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "65535"}, "MASTER_PORT='65535' leaves no port"),
    ],
)
def test_hosts_that_cannot_tell_where_they_meet(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        host_rendezvous.meeting("mpirun", environment)


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
    assert host_rendezvous.first_node(nodes) == first


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


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"rank": 1}, UsageError, "rank 1 is the first of its host, 2 was expected"),
        ({"local_ranks": 1}, UsageError, "host 1 has 1 ranks, 2 were expected"),
        ({"tracer": "torch"}, UsageError, "host 1 has tracer 'torch', rank 0's host 'nsys'"),
        ({"error": "there is no CUDA GPU here", "hint": "x"}, ToolError, "host 1: there is no CUDA GPU here"),
    ],
)
def test_hosts_must_be_alike(change: dict[str, object], error: type[MoeprofError], said: str) -> None:
    from moeprof.capture.hosts import _alike, hello

    mine, theirs = (hello((rank, 2), "w", "cuda", "nsys", {}) for rank in (0, 2))
    _alike(Team((2, 2)), mine, {2: theirs})
    with pytest.raises(error, match=said):
        _alike(Team((2, 2)), mine, {int(str(change.get("rank", 2))): theirs | change})


def test_what_a_host_has_otherwise_is_told() -> None:
    from moeprof.capture.hosts import _unlike, hello

    def said(rank: int, **machine: str) -> dict[str, Any]:
        return hello((rank, 2), "w", "cuda", "nsys", {"driver": "1", "torch": "2", **machine})

    found = _unlike(said(0), {1: said(2), 2: said(4, driver="9", nccl="5")})
    assert found == {2: "driver 9, here 1; nccl 5, here none"}


def test_half_an_interval_is_rounded_so_that_it_holds_both_ends() -> None:
    assert clock_offset.between(0, 3) == Offset(1, 2) and clock_offset.between(-3, 0) == Offset(-2, 2)


@pytest.mark.parametrize("refused", [False, True])
def test_the_end_of_a_process_that_is_no_child_is_seen(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.worker import follower

    if refused:
        monkeypatch.setattr(os, "pidfd_open", lambda pid: (_ for _ in ()).throw(PermissionError(pid)))
    seen = threading.Event()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:

        def wait() -> None:
            follower._until_ended(process.pid)
            seen.set()

        threading.Thread(target=wait, daemon=True).start()
        assert not seen.wait(0.5)
        process.kill()
        assert seen.wait(10), "it has ended, though nobody waited for it"
    follower._until_ended(process.pid)
