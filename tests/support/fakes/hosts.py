"""Several hosts on one machine: the processes that a launcher starts on each, with its variables."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fakes.command_line import FAKES, environment, warm
from fakes.forked import Fork

RANKED = str(FAKES / "ranked_workload.py")
QUICK = ("--rounds", "2", "--iterations", "3", "--timeout", "60", "--variants", "chunked")
JOIN_S = 100


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Launch:
    """The captures of hosts, one process for each rank; ``changes`` are variables of one host, by its number."""

    folder: Path
    layout: tuple[int, ...] = (1, 1)
    words: tuple[str, ...] = ("--device", "cpu", *QUICK)
    changes: dict[int, dict[str, str]] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)
    skip: tuple[int, ...] = ()  # ranks that are not started
    within: dict[int, tuple[str, ...]] = field(default_factory=dict)  # what a host's commands begin with
    folders: dict[int, Path] = field(default_factory=dict)  # where a host runs, if not in ``folder``
    running: dict[int, Fork | subprocess.Popen[str]] = field(default_factory=dict)

    def start(self) -> None:
        """Start them all; output goes to files beside the capture."""
        common = {"MASTER_PORT": str(free_port()), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"} | self.common
        words = ["-P", "-m", "moeprof", "capture", RANKED, "-o", "cap", *self.words]
        for host, size in enumerate(self.layout):
            for local in range(size):
                rank = sum(self.layout[:host]) + local
                place = self.slurm(rank, host, local)
                given = environment(PYTHONPATH="", **common) | place | self.changes.get(host, {})
                if rank not in self.skip:
                    with (self.folder / f"out{rank}").open("w") as out, (self.folder / f"err{rank}").open("w") as err:
                        self.running[rank] = self.started(host, words, given, out.fileno(), err.fileno())

    def started(
        self, host: int, words: list[str], given: dict[str, str], out: int, err: int
    ) -> Fork | subprocess.Popen[str]:
        """A capture: a fork of the warm process, or within another command a process of its own."""
        folder = self.folders.get(host, self.folder)
        if within := self.within.get(host):
            command = [*within, sys.executable, *words]
            return subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=given, text=True)
        return warm(given).start(words, folder, given, stdout=out, stderr=err)

    def slurm(self, rank: int, host: int, local: int) -> dict[str, str]:
        """What srun sets."""
        found = {"PROCID": rank, "STEP_NUM_TASKS": sum(self.layout), "LOCALID": local, "NODEID": host}
        sizes = ",".join(map(str, self.layout))
        return {f"SLURM_{k}": str(v) for k, v in found.items()} | {
            "SLURM_STEP_TASKS_PER_NODE": sizes,
            "SLURM_JOB_ID": "77",
        }

    def wait(self) -> dict[int, int]:
        """Exit statuses by rank."""
        until = time.monotonic() + JOIN_S
        return {rank: one.wait(max(until - time.monotonic(), 0.1)) for rank, one in self.running.items()}

    def said(self, rank: int) -> str:
        """What a rank's capture said on stderr."""
        return (self.folder / f"err{rank}").read_text()

    def wait_for(self, rank: int, words: str) -> None:
        """Until a log of the capture, or a rank's stderr, holds these words."""
        until = time.monotonic() + JOIN_S
        while words not in self.said(rank):
            assert time.monotonic() < until, self.said(rank)
            time.sleep(0.05)

    def error(self, rank: int) -> str:
        """The one line of a failure, without a traceback."""
        assert "Traceback" not in self.said(rank), self.said(rank)
        return next(line for line in self.said(rank).splitlines() if line.startswith("error:"))

    def workers(self) -> list[int]:
        """The numbers of all processes that these captures started and that still run, their own included."""
        mark = f"HOSTING={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                here = (path / "cwd").readlink().is_relative_to(self.folder)  # a fork has its origin's variables
                if (here or mark in (path / "environ").read_bytes()) and int(path.name) != os.getpid():
                    found.append(int(path.name))
        return found


@contextmanager
def launched(folder: Path, **words: object) -> Iterator[Launch]:
    """Captures that are ended whatever the test finds, and of which nothing is left."""
    found = Launch(folder, **words)  # type: ignore[arg-type]
    found.common = found.common | {"HOSTING": str(folder)}
    found.start()
    try:
        yield found
    finally:
        for process in found.running.values():
            process.kill()
            process.wait()
    until = time.monotonic() + 10
    while (left := found.workers()) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"{len(left)} processes outlived their captures"


def all_ended(statuses: dict[int, int], expected: Sequence[int]) -> None:
    """The statuses, by rank."""
    assert [statuses[rank] for rank in sorted(statuses)] == list(expected)
