"""The ranks that a process starts as its children: each with its place in its environment and a log, and an eye on its end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moeprof.machine.launcher import Team
from moeprof.storage.files import lines_of, of_rank
from moeprof.worker import failures
from moeprof.worker.failures import Cause
from moeprof.worker.spec import WorkerSpec

STACK_S = 0.5  # for a rank to say where it stands
STACK = "(most recent call first):"
WORDS = 200  # characters of what a rank last said


class Children:
    """Children by rank, which write beside ``log``. ``ended`` is told, in a thread, of one that ends unasked."""

    def __init__(self, log: Path, ended: Callable[[Cause], None]):
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
            self._ended(silent_end(rank, status, last_words(of_rank(self.log, rank))))

    def linger(self, seconds: float) -> None:
        """Until an end was told of, at most so long: what failed here may follow from it, and shows before the kernel tells."""
        until = time.monotonic() + seconds
        while all(thread.is_alive() for thread in self._watching) and self._watching and time.monotonic() < until:
            time.sleep(0.02)

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


def silent_end(rank: int, status: int, words: str) -> Cause:
    """A rank that ended without leaving word."""
    dragged = status in failures.DRAGGED
    return Cause(rank, failures.how_it_ended(status), words, time.time(), silent=True, dragged=dragged)


def where(pid: int, log: Path) -> tuple[bool, str, str]:
    """Where a rank stands: the kernel says whether it is stopped, the rank itself writes its stack to its log; and its last words."""
    words = last_words(log)
    if state(pid) in ("T", "t"):
        return True, "", words
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    time.sleep(STACK_S)
    return False, innermost("\n".join(lines_of(log))), words


def last_words(log: Path) -> str:
    """What a rank last said."""
    return next(reversed(lines_of(log)), "nothing")[:WORDS]


def innermost(text: str) -> str:
    """``file:line`` of the innermost Python line of the last stack in a log, as faulthandler writes it; "" without one."""
    _, found, stack = text.rpartition(STACK)
    line = next((line.strip() for line in stack.splitlines() if line.strip().startswith("File ")), "") if found else ""
    parts = line.split('"')
    return f"{parts[1]}:{parts[2].split('line ')[-1].split(' ')[0]}" if len(parts) == 3 else ""


def state(pid: int) -> str:
    """The kernel's letter for a process: T is stopped; "" where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
