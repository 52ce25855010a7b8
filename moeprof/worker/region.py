"""``moeprof.region``: name a part of a program, so that profilers show it and ``moeprof capture --unit NAME`` times it.

Importing it costs nothing: torch and nvtx are used only where the process has them. It is the one thing of moeprof that a program
under test needs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from moeprof.worker import nvtx

TIMES = "MOEPROF_REGIONS"  # the folder to which each process writes the times of its regions; unset: nothing is timed
SUFFIX = ".regions"


@contextmanager
def region(name: str, sync: bool = True) -> Iterator[None]:
    """A range around the body of a ``with``: an NVTX range for nsys and ncu, a ``record_function`` range for torch.profiler.

    While ``moeprof capture`` times the program without a profiler, the wall time of the body is recorded. The GPU is synchronised
    before and after the body then, and at no other time, so that the time contains the body's GPU work and nothing else.

    Args:
        name: the same for every repetition. A region that repeats is a unit of work.
        sync: False: do not synchronise. The time is then the host's alone.
    """
    file = _file()
    with ExitStack() as ranges:
        ranges.enter_context(nvtx.default_range(name))
        if file is None:
            ranges.enter_context(_recorded(name))
            yield
            return
        if sync:
            _synchronize()
        started = time.perf_counter_ns()
        yield  # a body that raises has no time
        if sync:
            _synchronize()
        file.write(f"{time.perf_counter_ns() - started} {name}\n")


@cache
def _open(folder: str, pid: int) -> TextIO:
    """The file of this process; a child by fork opens one of its own."""
    return (Path(folder) / f"{pid}{SUFFIX}").open("a", buffering=1, encoding="utf-8")


def _file() -> TextIO | None:
    folder = os.environ.get(TIMES)
    return None if not folder else _open(folder, os.getpid())


def _recorded(name: str) -> AbstractContextManager[Any]:
    """A range for torch.profiler, in a process that has loaded torch; a few microseconds where it does not record."""
    torch: Any = sys.modules.get("torch")
    record = getattr(getattr(torch, "profiler", None), "record_function", None)
    return nullcontext() if record is None else record(name)


def _synchronize() -> None:
    """Wait for the GPU, if this process uses one through torch."""
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        cuda.synchronize()


def recorded_ns(folder: Path, name: str) -> list[list[int]]:
    """The times of region ``name`` in ns, in order, by process; processes without it are left out."""
    processes = []
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        rows = (line.rstrip("\n").partition(" ") for line in file.read_text(encoding="utf-8").splitlines())
        times = [int(ns) for ns, _, of in rows if of == name]
        if times:
            processes.append(times)
    return processes


def names(folder: Path) -> list[str]:
    """The names of all regions that were recorded."""
    lines = (
        line for file in sorted(folder.glob(f"*{SUFFIX}")) for line in file.read_text(encoding="utf-8").splitlines()
    )
    return sorted({line.partition(" ")[2] for line in lines})
