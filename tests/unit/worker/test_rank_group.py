"""Which rank failed first, which one hangs, and when a request has taken too long: the state machine of ranks, as tables."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.errors import ToolError, WorkloadError
from moeprof.machine.launcher import Team
from moeprof.worker import failures, rank_group
from moeprof.worker.failures import Failure, Position
from moeprof.worker.rank_group import (
    AllAnswered,
    Asked,
    Closing,
    End,
    Event,
    Failed,
    LeaderAnswered,
    Locate,
    Located,
    RankGroup,
    ReadReports,
    Reports,
    RunStarted,
    Tick,
)

TIMEOUT_S = 20.0
NONE = Position(0)  # what a table row has for "nothing"


class Run:
    """A group with a clock of its own; ``reports`` is what the ranks have reported, ``stand`` where they stand."""

    def __init__(self, layout: tuple[int, ...] = (3,)) -> None:
        self.group = RankGroup(Team(layout), TIMEOUT_S, Path("logs/chunked-clean.log"))
        self.now_s, self.ended = 100.0, None  # type: float, Failure | None
        self.reports: list[tuple[float, Failure]] = []  # each from a time on
        self.stand: tuple[Position, ...] = ()
        self.located: list[bool] = []

    def take(self, *events: Event) -> Run:
        for event in events:
            action = self.group.handle(event, self.now_s)
            if isinstance(action, ReadReports):
                due = tuple(failure for at_s, failure in self.reports if at_s <= self.now_s)
                self.reports = [entry for entry in self.reports if entry[0] > self.now_s]
                self.take(Reports(due))
            elif isinstance(action, Locate):
                self.located.append(action.leader)
                self.take(Located(self.stand))
            elif isinstance(action, End):
                assert self.ended is None, "a run ends once"
                self.ended = action.failure
        return self

    def pass_s(self, seconds: float) -> Run:
        """Time passes; a Tick comes whenever the group wants one."""
        until = self.now_s + seconds
        while self.ended is None and self.group.wake_s is not None and self.group.wake_s <= until:
            self.now_s = max(self.group.wake_s, self.now_s)
            self.take(Tick())
        self.now_s = until
        return self

    def ask(self, name: str) -> Run:
        return self.take(Asked(name))

    def answered(self) -> Run:
        return self.take(LeaderAnswered(), AllAnswered())


def raised(rank: int, message: str, at_s: float = 1.0) -> Failure:
    return failures.raised(rank, WorkloadError(message), at_s)


def died(rank: int, status: int, last: str = "nothing", at_s: float = 1.0) -> Failure:
    return failures.death(rank, status, last, at_s)


PEER = "RuntimeError: Connection closed by peer"
# request, answered before it fails, what the ranks' parents see, what ranks report, the line
FAULTS = {
    "build": ("build", False, [died(1, 5)], [raised(1, "RuntimeError: planted in build")],
              "rank 1 of 3 failed in build (exit status 5): RuntimeError: planted in build"),
    "start": ("start", False, [died(1, 5)], [raised(1, "RuntimeError: planted")],
              "rank 1 of 3 failed in start (exit status 5): RuntimeError: planted"),
    "exit": ("times", False, [died(1, 3, "about to leave")], [],
             "rank 1 of 3 died in a timed round (exit status 3); it last printed: about to leave"),
    "kill": ("times", False, [died(1, -9)], [], "rank 1 of 3 died in a timed round (killed by SIGKILL); it last printed: nothing"),
    "raise in rank 0": ("times", False, [raised(0, "RuntimeError: planted")], [],
                        "rank 0 of 3 failed in a timed round (exit status 5): RuntimeError: planted"),
    "traced": ("measure", False, [died(1, 7)], [], "rank 1 of 3 died in the traced run (exit status 7); it last printed: nothing"),
    "between requests": ("build", True, [died(2, -9)], [],
                         "rank 2 of 3 died after build (killed by SIGKILL); it last printed: nothing"),
    "an error drags others along": (
        "prove", False, [raised(0, PEER, 2.0), died(1, 5), died(2, 5)], [raised(1, PEER, 2.1), raised(2, "planted", 1.9)],
        "rank 2 of 3 failed in the proof (exit status 5): planted"),
    "a death drags others along": (
        "prove", False, [raised(0, PEER, 1.0), died(1, -9, at_s=1.5)], [raised(2, PEER, 0.9)],
        "rank 1 of 3 died in the proof (killed by SIGKILL); it last printed: nothing"),
    "NCCL's watchdog aborts the peers": (
        "times", False, [died(1, -signal.SIGABRT, at_s=0.5), died(2, 5)], [raised(2, "planted", 0.4)],
        "rank 2 of 3 failed in a timed round (exit status 5): planted"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_rank_that_failed_first_is_named(fault: str) -> None:
    request, answered, seen, reported, line = FAULTS[fault]
    run = Run().ask(request)
    if answered:
        run.answered()
    run.reports = [(0.0, failure) for failure in reported]
    run.take(*map(Failed, seen))
    assert run.ended is None, "the cause has time to show"
    run.pass_s(rank_group.SETTLE_S)
    assert run.ended is not None and run.ended.text == line
    assert run.ended.host is None and run.ended.code == 5
    rank = run.ended.rank
    assert run.ended.hint == f"read logs/chunked-clean{f'.rank{rank}' if rank else ''}.log"


def test_a_rank_s_own_hint_and_exit_code_are_kept() -> None:
    run = Run().ask("build").take(Failed(failures.raised(1, ToolError("no nvcc", "install it"), 1.0))).pass_s(1)
    assert run.ended is not None and (run.ended.code, run.ended.hint) == (4, "install it")


def test_failures_of_ranks_that_were_told_to_quit_are_none() -> None:
    run = Run().ask("prove").answered().take(Closing(), Failed(died(1, -9))).pass_s(100)
    assert run.ended is None


HANGS = [
    # request, rank 0 has answered, where ranks stand, the line
    ("times", True, (Position(1, True, "", "about to stop"),),
     "rank 1 of 3 gave no answer in a timed round within 20 s (stopped by a signal); it last printed: about to stop"),
    ("prove", False, (Position(0, at="/x/torch/distributed/c10d.py:9"), Position(1, at="/y/ranked_workload.py:26")),
     "rank 1 of 3 gave no answer in the proof within 20 s (at /y/ranked_workload.py:26)"),
    ("prove", False, (Position(0, at="/x/torch/distributed/c10d.py:9"), Position(1, at="/y/ranked_workload.py:26"), Position(2, True)),
     "rank 2 of 3 gave no answer in the proof within 20 s (stopped by a signal)"),
    ("build", True, (Position(1, at="/a.py:1"), Position(2, at="/b.py:2")),
     "rank 1, 2 of 3 gave no answer in build within 20 s (at /a.py:1)"),
    ("times", False, (Position(0, at="/z/moeprof/worker/channel.py:7"), Position(2)),
     "rank 2 of 3 gave no answer in a timed round within 20 s (no stack could be read)"),
    ("times", False, (Position(0, at="/x/torch/distributed/c10d.py:9"), Position(1, at="/x/torch/cuda/streams.py:9")),
     "rank 0, 1 of 3 gave no answer in a timed round within 20 s (at /x/torch/distributed/c10d.py:9)"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "leader", "stand", "line"), HANGS)
def test_a_rank_that_hangs_is_named_once_the_time_is_over(
    request_: str, leader: bool, stand: tuple[Position, ...], line: str
) -> None:
    run = Run().ask(request_)
    run.stand = stand
    if leader:
        run.take(LeaderAnswered())
    assert run.pass_s(TIMEOUT_S - 0.1).ended is None
    run.pass_s(0.2)
    assert run.located == [not leader], "rank 0 is looked at too, unless it has answered"
    assert run.ended is not None and run.ended.text == line
    assert run.ended.hint.startswith("allow more with --timeout, or read logs/chunked-clean")


def test_each_request_has_the_whole_time_and_a_run_has_it_once() -> None:
    run = Run()
    run.stand = (Position(1),)
    for _ in range(3):
        run.ask("times").pass_s(TIMEOUT_S - 1).answered()
    assert run.pass_s(5 * TIMEOUT_S).ended is None, "between requests there is no limit"
    run.take(RunStarted()).ask("build").pass_s(15).answered()
    run.take(RunStarted()).ask("measure").pass_s(15).answered()  # it waited for its turn: the time counts anew
    run.ask("measure").pass_s(4.9)
    assert run.ended is None and run.pass_s(0.2).ended is not None


def test_answers_that_come_while_ranks_are_looked_at_are_answers() -> None:
    run = Run().ask("times").take(LeaderAnswered())
    assert run.pass_s(TIMEOUT_S + 1).ended is None, "nobody is late any more"


def test_of_several_hosts_news_of_a_death_is_waited_for() -> None:
    run = Run((1, 2)).ask("prove")
    run.reports = [(0.0, raised(1, PEER, 0.5)), (103.0, died(2, -9, at_s=0.9))]
    run.take(Failed(raised(0, PEER, 1.0))).pass_s(2.9)
    assert run.ended is None
    run.pass_s(0.3)
    assert run.ended is not None
    assert run.ended.text == "rank 2 of 3 (host 1) died in the proof (killed by SIGKILL); it last printed: nothing"
    errors = Run((1, 2)).ask("prove").take(Failed(raised(0, PEER, 1.0)), Failed(raised(1, "planted", 0.9)))
    assert errors.pass_s(rank_group.FAR_S).ended is None
    errors.pass_s(1)
    assert errors.ended is not None and errors.ended.rank == 1 and errors.ended.host == 1


def test_what_a_host_reports_starts_it_too() -> None:
    run = Run((1, 2)).ask("times").take(Reports((died(2, 3, "about to leave"),))).pass_s(1)
    assert run.ended is not None
    assert (
        run.ended.text == "rank 2 of 3 (host 1) died in a timed round (exit status 3); it last printed: about to leave"
    )


def test_what_a_rank_reported_counts_more_than_how_it_ended_then() -> None:
    run = Run((1, 2)).ask("build").take(Reports((raised(1, "planted"),)), Failed(died(1, 5))).pass_s(10)
    assert run.ended is not None
    assert run.ended.text == "rank 1 of 3 (host 1) failed in build (exit status 5): planted"


def test_a_failure_travels_whole() -> None:
    from moeprof.storage.json import decode, encode

    failure = replace(died(2, -9), host=1, ranks=3, phase="in build", others=(1,))
    assert decode(Failure, encode(failure)) == failure


def test_a_rank_without_a_trace_is_named_with_its_host() -> None:
    lost = failures.untraced(2, 4, 1, "ended without a trace: it left no t.json", "read the logs")
    assert (
        lost.message == "rank 2 of 4 (host 1) ended without a trace: it left no t.json" and lost.hint == "read the logs"
    )
    assert lost.failure.rank == 2 and lost.exit_code == 5
