"""The times of one run of a command: of its process, of its regions, or printed in its output. Pure, but for the files it reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from moeprof.capture.command_set import Clock
from moeprof.errors import WorkloadError
from moeprof.worker import region

# the unit that a program prints -> ns
UNITS_NS = {
    "ns": 1.0, "us": 1e3, "µs": 1e3, "μs": 1e3, "usec": 1e3, "ms": 1e6, "msec": 1e6, "s": 1e9, "sec": 1e9, "secs": 1e9,
    "second": 1e9, "seconds": 1e9, "min": 60e9, "m": 60e9, "h": 3600e9,
}  # fmt: skip
ENDING = "the command ran and left no time"


@dataclass(frozen=True)
class Ran:
    """One run of a command that ended with 0: how long its process took, what it printed, and the folder of its regions' times."""

    name: str
    process_ns: int
    output: Path
    regions: Path


def times_ns(ran: Ran, clock: Clock, warm_up_steps: int | None) -> tuple[int, ...]:
    """The times of a run, in order, without its first ``warm_up_steps`` (None: without the first one of several).

    Raises:
        WorkloadError: the run contains no time that counts, or a printed unit is unknown.
    """
    if clock.kind == "process":
        return (ran.process_ns,)
    times = _of_region(ran, clock.what) if clock.kind == "region" else _printed(ran, clock.what)
    left_out = warm_up_steps if warm_up_steps is not None else int(len(times) > 1)
    if len(times) <= left_out:
        raise WorkloadError(
            f"{ran.name}: the run has {len(times)} times of {clock.what!r}, and {left_out} of them warm up",
            "let it do more steps, or lower warm_up_steps",
        )
    return tuple(times[left_out:])


def units_in(ran: Ran, clock: Clock) -> int | None:
    """How many units of work a run did; None where its times do not say: of a process, or rates, which are not per step."""
    if clock.kind == "region":
        return len(_of_region(ran, clock.what))
    if clock.kind == "process":
        return None
    matches = list(re.finditer(clock.what, ran.output.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
    return None if any("/" in (match["unit"] or "") for match in matches) else len(matches)


def _of_region(ran: Ran, name: str) -> list[int]:
    """Of several processes the slowest counts, instance by instance."""
    processes = region.recorded_ns(ran.regions, name)
    if not processes:
        marked = ", ".join(region.names(ran.regions)) or "none"
        raise WorkloadError(
            f"{ran.name}: {ENDING} of a region {name!r}; its regions: {marked}",
            f"mark the step in its code: with moeprof.region({name!r}), or time what it prints with --time",
        )
    counts = sorted({len(times) for times in processes})
    if len(counts) > 1:
        raise WorkloadError(
            f"{ran.name}: its processes ran region {name!r} {' and '.join(map(str, counts))} times",
            "mark a region that all ranks run equally often",
        )
    return [max(times) for times in zip(*processes, strict=True)]


def _printed(ran: Ran, pattern: str) -> list[int]:
    text = ran.output.read_text(encoding="utf-8", errors="replace")
    times = [_ns(ran.name, match["value"], match["unit"]) for match in re.finditer(pattern, text, re.MULTILINE)]
    if not times:
        raise WorkloadError(f"{ran.name}: {ENDING}: nothing that it printed matches /{pattern}/", f"read {ran.output}")
    return times


def _ns(name: str, value: str | None, unit: str | None) -> int:
    """A printed time in ns. ``X/s`` is a rate, of which the time of one X counts; ``s/X`` is a time."""
    text = (unit or "").strip()
    try:
        number = float((value or "").replace(",", ""))
    except ValueError:
        raise WorkloadError(
            f"{name}: it printed {value!r}, which is not a number", "match the number alone as value"
        ) from None
    before, _, after = text.partition("/")
    if text in UNITS_NS:
        time = number * UNITS_NS[text]
    elif after and before in UNITS_NS:
        time = number * UNITS_NS[before]
    elif after in UNITS_NS and number > 0:
        time = UNITS_NS[after] / number
    else:
        known = "a unit of time (ns, us, ms, s, min), a rate such as tok/s, or a time such as s/it"
        raise WorkloadError(
            f"{name}: it printed {value} {text!r}, which is not a time", f"the group unit must match {known}"
        )
    if not 0 < time < float("inf"):
        raise WorkloadError(f"{name}: it printed {value} {text}, which is no time of a step", "print a time above 0")
    return max(1, round(time))
