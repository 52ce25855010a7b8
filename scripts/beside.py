"""Time several actions beside each other in one process: interleaved rounds, medians. Used by the benchmark scripts; no command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch

ROUND_MS = 40  # of one entry in one round
Run = Callable[[], object]


def attempt(found: dict[str, Run], name: str, make: Callable[[], Run]) -> None:
    """Make and run an entry once and keep it; one that fails is said on stderr and left out."""
    try:
        run = make()
        run()
        torch.cuda.synchronize()
        found[name] = run
    except Exception as error:  # a peer may fail in any way
        said = str(error).strip().splitlines()[:1]
        print(f"  {name}: left out: {type(error).__name__}: {said}", file=sys.stderr, flush=True)


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
    for turn in range(rounds if names else 0):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            times[name].append(timed(runs[name], counts[name]))
    return times
