"""Which timed phases were disturbed, and which conditions lasted for the whole run. Pure. Rules and reasons: docs/reference/verdict.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import median
from typing import NamedTuple

from moeprof.machine.nvml import POWER_CAP
from moeprof.notes import Note, note
from moeprof.storage.manifest import Environment, Gpu, Round

MOST = (
    0.5  # share of a variant's phases beyond which a state is a condition of the run, which repeating would not change
)
CLOCK_FELL = (
    0.9  # of the median SM clock of the same variant's phases: below it something other than its own power held it
)
OTHERS_ROSE = 0.25  # of all cores, busy with other processes beyond the median of the run
OTHERS_MOST = 0.5  # of all cores, busy with other processes in the median: a condition
CLOCK, OTHER, CPU = "SM clock fell", "another process on the GPU", "other work on the CPU"


class State(NamedTuple):
    """What was unusual in a phase, and on the GPU of which rank, if it concerns a GPU."""

    what: str
    rank: int = 0

    @property
    def whose(self) -> str:
        """The rank in words; empty for rank 0."""
        return f" (GPU of rank {self.rank})" if self.rank else ""

    def __str__(self) -> str:
        return self.what + self.whose


Phases = Mapping[str, tuple[Round, ...]]  # by variant; the baseline's twin under a name of its own


@dataclass(frozen=True)
class Condition:
    """A state that lasted for most phases of a variant. It is reported, and disturbs nothing."""

    name: str
    held: State
    count: int
    of: int

    @property
    def state(self) -> str:
        """In words."""
        return str(self.held)


@dataclass(frozen=True)
class Judged:
    """The phases with their marks, and the conditions of the run."""

    phases: dict[str, tuple[Round, ...]]
    conditions: tuple[Condition, ...]

    @property
    def used(self) -> int:
        """How many rounds count."""
        return len({r.index for rounds in self.phases.values() for r in rounds if r.used})

    @property
    def left_out(self) -> dict[int, tuple[str, ...]]:
        """The rounds that do not count, and why."""
        rounds = sorted((r for rounds in self.phases.values() for r in rounds if not r.used), key=lambda r: r.index)
        return {
            i: tuple(dict.fromkeys(reason for r in rounds if r.index == i for reason in r.disturbed))
            for i in dict.fromkeys(r.index for r in rounds)
        }


def judge(phases: Phases, environment: Environment, device: str) -> Judged:
    """Mark each phase. If any phase of a round was disturbed, the round does not count for any variant: its pairs would differ."""
    marked: dict[str, tuple[Round, ...]] = {}
    conditions: list[Condition] = []
    for name, rounds in phases.items():
        marked[name], held = _variant(name, _Usual.of(rounds, environment.cpus if device == "cpu" else None), rounds)
        conditions += held
    bad = {r.index for rounds in marked.values() for r in rounds if r.disturbed}
    return Judged(
        {name: tuple(replace(r, used=r.index not in bad) for r in rounds) for name, rounds in marked.items()},
        tuple(conditions),
    )


@dataclass(frozen=True)
class _Usual:
    """The usual clocks of each GPU and work of others in one variant's phases. ``cpus`` is None if the GPU is timed: then work on
    the CPU is not watched."""

    clocks_mhz: tuple[float | None, ...]
    others_cores: float | None
    cpus: int | None

    @staticmethod
    def of(rounds: tuple[Round, ...], cpus: int | None) -> _Usual:
        clocks_by_gpu = zip_longest(*([gpu.sm_clock_mhz for gpu in r.gpus] for r in rounds))
        clocks = tuple(_median([clock for clock in clocks if clock]) for clocks in clocks_by_gpu)
        return _Usual(clocks, _median([r.others_cores for r in rounds if r.others_cores is not None]), cpus)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _variant(name: str, usual: _Usual, rounds: tuple[Round, ...]) -> tuple[tuple[Round, ...], list[Condition]]:
    """One variant's phases marked: what holds in most of them is its condition, what holds in some disturbed those."""
    states = [_states(r, usual) for r in rounds]
    counts = Counter(state for unusual in states for state in unusual)
    lasting = [state for state, count in counts.items() if count > MOST * len(rounds)]
    passing = {state for state in counts if state not in lasting and state.what != POWER_CAP}
    marked = tuple(
        replace(r, disturbed=tuple(str(s) for s in unusual if s in passing))
        for r, unusual in zip(rounds, states, strict=True)
    )
    conditions = [Condition(name, state, counts[state], len(rounds)) for state in lasting]
    if usual.cpus and usual.others_cores is not None and usual.others_cores > OTHERS_MOST * usual.cpus:
        conditions.append(Condition(name, State(CPU), len(rounds), len(rounds)))
    return marked, conditions


def _states(phase: Round, usual: _Usual) -> list[State]:
    """What was unusual right after a phase."""
    unusual: list[State] = []
    for rank, (gpu, usual_mhz) in enumerate(zip(phase.gpus, usual.clocks_mhz, strict=False)):
        unusual += [State(what, rank) for what in _of_gpu(gpu, usual_mhz)]
    others_cores = phase.others_cores
    if usual.cpus and others_cores is not None and others_cores > (usual.others_cores or 0) + OTHERS_ROSE * usual.cpus:
        unusual.append(State(CPU))
    return unusual


def _of_gpu(gpu: Gpu, usual_mhz: float | None) -> list[str]:
    reasons = list(gpu.throttle_reasons)
    clock = gpu.sm_clock_mhz
    if usual_mhz and clock and clock < CLOCK_FELL * usual_mhz and POWER_CAP not in gpu.throttle_reasons:
        reasons.append(CLOCK)
    return [*reasons, OTHER] if gpu.other_processes else reasons


def notes(judged: Judged, total: int) -> tuple[Note, ...]:
    """Notes on the rounds that do not count, and on conditions by state."""
    notes_: list[Note] = []
    left = judged.left_out
    if left:
        counts = Counter(reason for reasons in left.values() for reason in reasons)
        why = ", ".join(f"{reason} in {count}" for reason, count in counts.most_common())
        notes_.append(note("rounds-left-out", count=len(left), total=total, used=judged.used, why=why))
    for state in dict.fromkeys(c.held for c in judged.conditions):
        held = [c for c in judged.conditions if c.held == state]
        where = ", ".join(f"{c.name} {c.count} of {c.of}" for c in held)
        if state.what == POWER_CAP:
            notes_.append(note("power-capped", state=str(state), where=where + state.whose))
        else:
            notes_.append(note("condition", state=str(state), where=where))
    return tuple(notes_)
