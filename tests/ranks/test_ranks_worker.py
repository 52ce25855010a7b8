"""The worker with ranks as its parent sees it: ranks enter together, one that dies at any time is named, none is left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.command_line import FAKES, alive, gone
from fakes.forked import WITH_TORCH
from paths import ROOT

pytest.importorskip("torch.distributed", reason="torch is not installed")

from moeprof.machine.launcher import Team
from moeprof.worker import messages
from moeprof.worker import profiler as recording
from moeprof.worker.channel import Channel
from moeprof.worker.messages import Build, Built, Hello, Measure, Prove, Request, Times
from moeprof.worker.server import Local
from moeprof.worker.spec import Measurement, Target, WorkerSpec
from moeprof.workload.find import load

RANKED = str(FAKES / "ranked_workload.py")
PARAMS = {"size": 64, "seed": 1}


class Leader:
    """A worker that serves ``ranks`` ranks."""

    def __init__(
        self, folder: Path, ranks: int = 2, workload: str = RANKED, timeout_s: int = 60, **changes: str
    ) -> None:
        target = Target(workload, "whole", "cpu", team=Team((ranks,)))
        spec = WorkerSpec("serve", target, timeout_s, str(folder / "w.log"))
        pipe, given = subprocess.PIPE, os.environ | {"OMP_NUM_THREADS": "1"} | changes
        self.process = WITH_TORCH.start(spec.argv[1:], ROOT, given, stdin=pipe, stdout=pipe, stderr=pipe)

    def hear(self) -> Any:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 60)[0], "no answer within a minute"
        return messages.reply(self.process.stdout.readline())

    def tell(self, request: Request[Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(messages.line(request) + "\n")
        self.process.stdin.flush()

    def ask(self, request: Request[Any]) -> Any:
        self.tell(request)
        return self.hear()


@contextmanager
def leader(folder: Path, **words: Any) -> Iterator[Leader]:
    """A worker that is ended, whatever the test finds."""
    found = Leader(folder, **words)
    try:
        yield found
    finally:
        found.process.close()


def pids(hello: Hello) -> list[int]:
    return [rank.pid for rank in hello.ranks]


def test_a_follower_ends_with_its_leader_even_if_it_is_stopped(tmp_path: Path) -> None:
    with leader(tmp_path) as found:
        first, second = pids(found.hear())
        assert first == found.process.pid and alive(second)
        os.kill(second, signal.SIGSTOP)
        found.process.kill()
        assert gone([second], 5.0)


def test_ranks_end_with_the_input_of_the_leader(tmp_path: Path) -> None:
    with leader(tmp_path) as found:
        said = found.hear()
        assert [r.rank for r in said.ranks] == [0, 1] and said.machine.ranks == 2
        assert found.process.stdin is not None
        found.process.stdin.close()
        assert found.process.wait(20) == 0 and gone(pids(said))


def test_a_rank_that_dies_between_requests_is_named(tmp_path: Path) -> None:
    with leader(tmp_path, ranks=3) as found:
        _, second, third = pids(found.hear())
        assert isinstance(found.ask(Build(PARAMS)), Built)
        os.kill(third, signal.SIGKILL)
        said = found.hear()
        assert said.failure.rank == 2 and said.code == 5
        assert said.error == "rank 2 of 3 died after build (killed by SIGKILL); it last printed: nothing"
        assert found.process.wait(10) == 5 and gone([second])


def test_a_leader_to_which_nobody_listens_ends_all_the_same(tmp_path: Path) -> None:
    with leader(tmp_path) as found:
        _, second = pids(found.hear())
        assert found.process.stdout is not None
        found.process.stdout.close()
        os.kill(second, signal.SIGKILL)
        assert found.process.wait(10) == 5


def test_a_rank_that_fails_in_a_collective_is_told_from_those_it_drags_along(tmp_path: Path) -> None:
    with leader(tmp_path, ranks=3, RANKED="raise:2") as found:
        found.hear()
        found.ask(Build(PARAMS))
        said = found.ask(Prove())
        assert said.error == "rank 2 of 3 failed in the proof (exit status 5): RuntimeError: planted in a round"
        assert said.hint.endswith("w.rank2.log")
    assert "planted in a round" in (tmp_path / "w.rank2.log").read_text()


def test_a_traced_run_that_fails_says_so_last_on_stderr(tmp_path: Path) -> None:
    result, out = tmp_path / "r.json", tmp_path / "t.json"
    target = Target(RANKED, "whole", "cpu", PARAMS, Team((2,)))
    measurement = Measurement("torch", str(result), out=str(out))
    spec = WorkerSpec("measure", target, log=str(tmp_path / "w.log"), measurement=measurement)
    ran = WITH_TORCH.run_python(spec.argv[1:], ROOT, os.environ | {"RANKED": "build:1"}, timeout_s=60)
    assert ran.returncode == 5 and not result.exists()
    said = messages.error_in(ran.stderr.splitlines()[-1])
    assert said is not None and said.failure.rank == 1 and "planted in build" in said.error


def test_a_barrier_holds_everybody_until_the_last_is_there() -> None:
    first = Channel.serve(3)
    others = [Channel.join("127.0.0.1", first.port, rank, 3) for rank in (1, 2)]
    passed: list[int] = []

    def enter(channel: Channel) -> None:
        for _ in range(2):
            channel.barrier()
            passed.append(channel.rank)

    threads = [threading.Thread(target=enter, args=(c,), daemon=True) for c in (first, others[0])]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert passed == []
    others[1].barrier()
    time.sleep(0.3)
    assert sorted(passed) == [0, 1], "the second barrier holds too"
    others[1].barrier()
    for thread in threads:
        thread.join(5)
    assert sorted(passed) == [0, 0, 1, 1]


def test_the_store_of_one_host_listens_on_the_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "0.0.0.0")
    channel = Channel.serve(2)
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening if address.port == channel.port] == ["127.0.0.1"]


class Recorded:
    """A session that writes down what is done."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def times(self, count: int) -> list[int]:
        self.seen.append("times")
        return [1] * count

    def measured(self, iterations: int) -> None:
        self.seen.append("measured")


def test_ranks_enter_a_round_and_the_measured_region_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def profiler(name: str, out: str | None, device: str, leads: bool) -> Iterator[None]:
        seen.append(f"start {name} {out} {'leads' if leads else 'follows'}")
        yield
        seen.append("stop")

    monkeypatch.setattr(recording, "recorder", profiler)
    workload = load(RANKED)
    local: Any = Local(workload, workload.variants[0], "cpu", rank=1, ranks=2, index=1)
    local.barrier, local.session = lambda: seen.append("barrier"), Recorded(seen)
    local.answer(Times(3))
    assert seen == ["barrier", "times"]
    seen.clear()
    local.answer(Measure(2, "torch", "/x/t.json"))
    assert seen == ["start torch /x/t.rank1.json follows", "barrier", "measured", "barrier", "stop"]


def test_under_nsys_only_the_leader_starts_and_stops_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from moeprof.worker import nvtx

    calls: list[str] = []
    api = type(
        "Api", (), {n: staticmethod(lambda n=n: calls.append(n)) for n in ("cudaProfilerStart", "cudaProfilerStop")}
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: api)
    monkeypatch.setattr(nvtx, "enable_nvtx", lambda: calls.append("ranges"))
    for leads in (False, True):
        with recording.recorder("nsys", None, "cuda", leads):
            calls.append("work")
    assert calls == ["ranges", "work", "ranges", "cudaProfilerStart", "work", "cudaProfilerStop"]
