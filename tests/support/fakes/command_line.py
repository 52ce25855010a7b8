"""The command as a user runs it: a child process, fake nsys and ncu, a GPU that is not there."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
from fakes.forked import FORKS, WITH_TORCH, Forks
from paths import FAKES

from moeprof.storage import manifest

TOKEN = "ghp_planted0123456789abcdefTOKEN"

FAST = ("--rounds", "2", "--iterations", "3", "--variants", "slow,fast")


def environment(**changes: str) -> dict[str, str]:
    """The fakes on PATH and PYTHONPATH, a planted token, nothing of the user's own tool settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOEPROF", "FAKE"))}
    path = {"PATH": f"{FAKES / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(FAKES / "site")}
    return kept | path | {"MOEPROF_TEST_TOKEN": TOKEN} | changes


def moeprof(*words: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd``, in a fork of a warm process."""
    changes.setdefault(
        "XDG_CACHE_HOME", str(cwd.with_name(f"{cwd.name}-cache"))
    )  # nothing of the user, nothing in ``cwd``
    given = environment(**changes)
    return warm(given).run(list(words), cwd, given, timeout_s=120)


def warm(environment: dict[str, str]) -> Forks:
    """The warm process for a command: one with the real torch, unless the fake one is to be found."""
    return FORKS if str(FAKES / "site") in environment["PYTHONPATH"].split(os.pathsep) else WITH_TORCH


def capture(cwd: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Capture the sleeping workload into ``cwd``/cap."""
    return moeprof("capture", str(FAKES / "workload.py"), "-o", "cap", *FAST, *words, cwd=cwd, **changes)


def whole(folder: Path) -> manifest.Manifest:
    """The manifest of a finished capture, in which nothing is left half-written."""
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "scratch").exists()
    return manifest.read(folder)


def one_clear_line(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """The failure is one line, without a traceback, and says these words."""
    assert "Traceback" not in ran.stderr
    line = next(line for line in ran.stderr.splitlines() if line.startswith("error:"))
    for word in words:
        assert word in line


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def running(word: str, folder: Path) -> list[str]:
    """Command lines that contain ``word``, of processes that name ``folder`` or work in it; a fork has a name for that."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if (word in line or word in process.name()) and (str(folder) in line or process.cwd() == str(folder)):
                found.append(line)
    return found


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)
