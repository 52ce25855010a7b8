"""Time several actions in one process, in interleaved rounds. Used by the benchmark scripts; not a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch

ROUND_MS = 40  # of one entry in one round
Run = Callable[[], object]


def attempt(runs: dict[str, Run], name: str, make: Callable[[], Run]) -> None:
    """Make an entry, run it once and add it to ``runs``; one that fails is reported on stderr and left out."""
    try:
        run = make()
        run()
        torch.cuda.synchronize()
        runs[name] = run
    except Exception as error:  # a peer may fail in any way
        reason = str(error).strip().splitlines()[:1]
        print(f"  {name}: left out: {type(error).__name__}: {reason}", file=sys.stderr, flush=True)


def timed(run: Run, count: int) -> float:
    """Median milliseconds of ``count`` runs back to back, after one untimed."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 2)]
    for mark in marks:
        mark.record()
        run()
    torch.cuda.synchronize()
    return median([a.elapsed_time(b) for a, b in pairwise(marks[1:])] or [marks[0].elapsed_time(marks[1])])


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each entry, round by round, the order rotated."""
    counts = {name: max(2, min(200, round(ROUND_MS / timed(run, 2)))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds if names else 0):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(timed(runs[name], counts[name]))
    return times
