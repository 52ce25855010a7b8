"""The ranks that a process starts as its children: each with its place in its environment, a log, and a watch on its end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from moeprof.machine.launcher import Team
from moeprof.storage.files import lines_of, of_rank
from moeprof.worker import failures
from moeprof.worker.failures import Failure, Position
from moeprof.worker.spec import WorkerSpec

STACK_S = 0.5  # for a rank to write where it stands
STAND_S = 5.0  # for another host to report where its ranks stand
STACK = "(most recent call first):"
LINE = 200  # characters of the last line of a log


class Children:
    """Children by rank, which write beside ``log``. ``ended`` is called, in a thread, for each that ends unasked."""

    def __init__(self, log: Path, ended: Callable[[Failure], None]):
        self.log, self._ended, self.closing = log, ended, False
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self._watching: list[threading.Thread] = []

    def start(self, rank: int, spec: WorkerSpec, environment: dict[str, str]) -> None:
        """Start a follower."""
        with of_rank(self.log, rank).open("ab") as log:
            self.running[rank] = subprocess.Popen(
                spec.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environment
            )
        self._watching.append(threading.Thread(target=self._watch, args=(rank,), daemon=True))
        self._watching[-1].start()

    def _watch(self, rank: int) -> None:
        """Wait for the end of one child; one that comes unasked is a failure."""
        status = self.running[rank].wait()
        if not self.closing:
            self._ended(failures.death(rank, status, last_line(of_rank(self.log, rank)), time.time()))

    @property
    def watched(self) -> bool:
        """Whether one runs, or has ended and that is being reported."""
        return any(thread.is_alive() for thread in self._watching)

    def wait(self, seconds: float) -> None:
        """Let all end by themselves, each within that time; the rest is killed."""
        for child in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End those that run."""
        for child in self.running.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL) if child.returncode is None else None


def environment(team: Team, rank: int, address: str, port: int) -> dict[str, str]:
    """What torch.distributed and launchers call a rank's place."""
    host = team.host(rank)
    names = {
        "RANK": rank, "LOCAL_RANK": rank - team.first(host), "WORLD_SIZE": team.ranks, "LOCAL_WORLD_SIZE": team.layout[host],
        "MASTER_PORT": port,
    }  # fmt: skip
    return {k: str(v) for k, v in names.items()} | {"MASTER_ADDR": address}


def positions(ranks: Mapping[int, tuple[int, Path]]) -> dict[int, Position]:
    """Where ranks stand, from their process numbers and logs: the kernel reports which are stopped, the others write their stacks
    to their logs."""
    last = {rank: last_line(log) for rank, (_, log) in ranks.items()}
    stopped = {rank for rank, (pid, _) in ranks.items() if state(pid) in ("T", "t")}
    for rank in ranks.keys() - stopped:
        with suppress(ProcessLookupError):
            os.kill(ranks[rank][0], signal.SIGUSR1)
    time.sleep(STACK_S if ranks.keys() - stopped else 0)
    at = {rank: "" if rank in stopped else innermost("\n".join(lines_of(log))) for rank, (_, log) in ranks.items()}
    return {rank: Position(rank, rank in stopped, at[rank], last[rank]) for rank in ranks}


def last_line(log: Path) -> str:
    """The last line that a rank printed."""
    return next(reversed(lines_of(log)), "nothing")[:LINE]


def innermost(text: str) -> str:
    """``file:line`` of the innermost Python line of the last stack in a log, as faulthandler writes it; "" without one."""
    _, marker, stack = text.rpartition(STACK)
    line = next((line.strip() for line in stack.splitlines() if line.strip().startswith("File ")), "") if marker else ""
    parts = line.split('"')
    return f"{parts[1]}:{parts[2].split('line ')[-1].split(' ')[0]}" if len(parts) == 3 else ""


def exists(pid: int) -> bool:
    """Whether a process has not ended, also one of another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return state(pid) != "Z"


def state(pid: int) -> str:
    """The kernel's letter for a process: T is stopped; "" where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
