"""Where hosts meet, what their letters are worth, and how far their clocks are apart."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosting import free_port
from hypothesis import given
from hypothesis import strategies as st

from moeprof import meeting, offsets, placing
from moeprof.errors import CaptureError, MoeprofError, ToolError, UsageError
from moeprof.meeting import Meeting
from moeprof.offsets import Anchor, Exchange, Offset
from moeprof.placing import Place, Team

SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "41234",
}


def test_hosts_may_differ_where_slurm_tells() -> None:
    found = placing.place(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4,3"})
    assert found == Place("srun", 5, 7, 1, 3, (4, 3)) and found.layout == (4, 3) and found.hosts == 2
    even = placing.place(SRUN | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"})
    assert even is not None and even.layout == (4, 4) and even.told == ()
    with pytest.raises(UsageError, match=r"7 ranks, and 4\+4\+3 on its hosts"):
        placing.place(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"})


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
        ({"MASTER_ADDR": "a"}, Meeting("a", meeting.DEFAULT_PORT, "")),
    ],
)
def test_where_hosts_meet(environment: dict[str, str], expected: Meeting) -> None:
    assert meeting.meeting("srun", environment) == expected


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
        meeting.meeting("mpirun", environment)


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
    assert meeting.first_node(nodes) == first


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
    found = offsets.ahead(exchanges)
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
        offsets.ahead([Exchange(truth, there, there, truth + there + back)])
        for truth, (there, back) in zip((start, start + drift), ways, strict=True)
    ]
    held = offsets.throughout(*ends)
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
    found = offsets.zero(pairs)
    assert found is not None
    assert found.least <= zero <= found.most and found.least <= zero + drift <= found.most
    assert offsets.zero([]) is None


def posts(token: str = "t") -> tuple[Any, Callable[[str], Any]]:
    from moeprof.post import Post

    where = Meeting("127.0.0.1", free_port(), token)
    kept = Post(where, True, 5)
    return kept, lambda other: Post(replace(where, token=other), False, 5)


torch = pytest.importorskip("torch.distributed", reason="torch is not installed")


def test_letters_are_signed_and_taken_once() -> None:
    kept, other = posts()
    mine, stranger = other("t"), other("another")
    mine.queue("q", {"n": 1})
    mine.queue("q", {"n": 2})
    assert [kept.take(f"q/{n}", 1) for n in (1, 2)] == [{"n": 1}, {"n": 2}]
    assert kept.take("q/1", 0.05) is None
    stranger.send("k", {"do": "quit"})
    with pytest.raises(CaptureError, match="not signed"):
        kept.take("k", 1)
    mine.send("a", {"x": 1})
    kept.store.set("b", kept.store.get("a"))
    with pytest.raises(CaptureError, match="not signed"):
        kept.take("b", 1)  # a letter of another key is no letter of this one


def test_a_file_travels_whole_and_no_more_of_it_at_once_than_fits(tmp_path: Path) -> None:
    from moeprof import post

    kept, other = posts()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (post.PIECE_BYTES // 256) * 6 + b"end")
    sums: list[str] = []
    sender, keys = other("t"), other("t")
    thread = threading.Thread(target=lambda: sums.append(sender.send_file("f", source, 20)))
    thread.start()
    time.sleep(0.5)
    assert sum(keys.has(f"f/{n}") for n in range(10)) <= post.AHEAD + 1, "the store's memory is bounded"
    sums.append(kept.receive_file("f", target, 20))
    thread.join()
    assert target.read_bytes() == source.read_bytes() and len(set(sums)) == 1
    with pytest.raises(CaptureError, match="did not come whole within 0 s"):
        kept.receive_file("nothing", target, 0.1)


def test_a_clock_is_measured_over_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, other = posts()
    far, ahead, true = other("t"), 7_000_000_000, time.time_ns
    main = threading.get_ident()
    monkeypatch.setattr(time, "time_ns", lambda: true() + (ahead if threading.get_ident() == main else 0))
    answering = threading.Thread(target=kept.answer_clock, args=("c", 10))
    answering.start()
    found = far.clock("c")
    answering.join()
    assert found.least <= ahead <= found.most and found.uncertainty_ns < 100_000_000


def slow_way(port: int, seconds: float) -> int:
    """The port of a way to ``port`` on which what is sent there takes longer; what comes back does not."""
    server = socket.create_server(("127.0.0.1", 0))

    def pass_on(source: socket.socket, target: socket.socket, wait: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(wait)
                target.sendall(data)
        for end in (source, target):
            end.close()

    def accept() -> None:
        for _ in range(2):  # the store's client looks whether the server answers before it stays
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for ends in ((near, far, seconds), (far, near, 0.0)):
                threading.Thread(target=pass_on, args=ends, daemon=True).start()
        server.close()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def test_a_clock_over_a_way_that_is_slow_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof import post

    monkeypatch.setattr(post, "EXCHANGES", 8)
    kept, _ = posts()
    far = post.Post(Meeting("127.0.0.1", slow_way(kept.meeting.port, 0.004), "t"), False, 10)
    answering = threading.Thread(target=kept.answer_clock, args=("c", 10))
    answering.start()
    found = far.clock("c")
    answering.join()
    assert found.least <= 0 <= found.most, "one clock: the truth is 0"
    assert -found.uncertainty_ns <= found.ns < -1_500_000, (
        "the middle is off by half the difference of the ways, within the doubt"
    )


def test_a_host_that_falls_silent_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.capture import beats

    monkeypatch.setattr(beats, "BEAT_S", 0.05)
    monkeypatch.setattr(beats, "SILENT_S", 2.0)
    kept, other = posts()
    lost: list[tuple[int, str]] = []
    watch = beats.Beats(kept, 0, [1, 2, 3], lambda host, why: lost.append((host, why)))
    alive, dying = (beats.Beats(other("t"), host, [0], lambda host, why: None) for host in (1, 2))
    other("t").store.set("host/3/gone", "")
    until = time.monotonic() + 20
    while not lost and time.monotonic() < until:
        time.sleep(0.02)
    assert lost == [(3, "the capture of its host ended")]
    dying.close()
    while len(lost) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert lost[1:] == [(2, "nothing was heard of its host for 2 s")]
    for one in (watch, alive):
        one.close()


def test_nobody_at_the_port_is_one_clear_line() -> None:
    from moeprof.post import Post

    with pytest.raises(ToolError, match=r"did not answer at 127.0.0.1:\d+ within 1 s"):
        Post(Meeting("127.0.0.1", free_port(), ""), False, 1)


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

    mine, theirs = hello(0, 2, "w", "cuda", "nsys"), hello(2, 2, "w", "cuda", "nsys")
    _alike(Team((2, 2)), mine, {2: theirs})
    with pytest.raises(error, match=said):
        _alike(Team((2, 2)), mine, {int(str(change.get("rank", 2))): theirs | change})


def test_half_an_interval_is_rounded_so_that_it_holds_both_ends() -> None:
    assert offsets.between(0, 3) == Offset(1, 2) and offsets.between(-3, 0) == Offset(-2, 2)
