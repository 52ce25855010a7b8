"""One kernel as ncu counted it: speed of light, roofline, memory, occupancy, warp states, pipes, rules, hot lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.kernels import hot_lines, memory_chart, occupancy, operations, pipes, speed_of_light
from moeprof.kernels.counters import Counted, counted
from moeprof.kernels.hot_lines import Hot
from moeprof.kernels.memory_chart import MemoryChart
from moeprof.kernels.occupancy import Occupancy
from moeprof.kernels.operations import Operations, Roof
from moeprof.kernels.pipes import Pipe, Scheduler
from moeprof.kernels.ranking import KernelCost
from moeprof.kernels.speed_of_light import SpeedOfLight
from moeprof.kernels.warp_states import cycles, shares
from moeprof.machine.ncu_metrics import WARP_STATE_METRICS, WARP_STATES
from moeprof.notes import Note
from moeprof.storage.json import encode
from moeprof.trace.ncu.pages import Pages

SCHEMA_VERSION = 1
HOT_LINES = 10
# Section -> the counters it is made of; those of the first ones are few (``--counters basic``)
BASIC: dict[str, tuple[str, ...]] = {
    "speed of light": speed_of_light.METRICS,
    "occupancy": occupancy.METRICS,
    "scheduler": tuple(pipes.SCHEDULER.values()),
    "warp states": WARP_STATE_METRICS,
}
OF_SETS = ("occupancy", "scheduler", "warp states")  # sections of ncu's own that its sets always have
WANTED: dict[str, tuple[str, ...]] = {
    **BASIC,
    "operations": (*operations.METRICS, *operations.TENSOR_METRICS),
    "memory chart": memory_chart.METRICS,
    "pipes": pipes.METRICS,
}


@dataclass(frozen=True)
class State:
    """A warp state: cycles that a warp is in it between two of its instructions, and their share of them all."""

    name: str
    what: str
    cycles: float
    share: float


@dataclass(frozen=True)
class Rule:
    """What one of ncu's rules reported; ``speedup_percent``: its own estimate, None without one."""

    name: str
    type: str  # "OPT", "WRN", "INF"
    text: str
    speedup_percent: float | None


@dataclass(frozen=True)
class Inspection:
    """A kernel of one launch shape. Each number is the median over ``launches`` (ncu's ordinals).

    ``missing``: section -> the counters that the report lacks; ``untold``: operations that no counter tells.
    ``asked``: the counters that the user named, as ncu gave them, metric -> value.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    device: int
    launches: tuple[int, ...]
    speed: SpeedOfLight
    flops: tuple[Operations, ...]
    roofs: tuple[Roof, ...]
    untold: tuple[str, ...]
    memory: MemoryChart
    occupancy: Occupancy
    scheduler: Scheduler
    states: tuple[State, ...]
    pipes: tuple[Pipe, ...]
    rules: tuple[Rule, ...]
    hot_source: tuple[Hot, ...]
    hot_sass: tuple[Hot, ...]
    compiled: dict[str, Any]
    missing: dict[str, tuple[str, ...]]
    asked: dict[str, float | None]


@dataclass(frozen=True)
class Traced:
    """A kernel as the capture's trace alone shows it; ``rank`` of ``of`` kernels by time, 1 the most costly."""

    variant: str
    rank: int
    of: int
    share: float | None  # of the window
    cost: KernelCost


@dataclass(frozen=True)
class InspectResult:
    """What ``moeprof inspect`` reports. ``kernels`` is empty where nothing could be counted, ``traced`` without a trace."""

    source: str
    kind: str  # "workload", "program", "capture", "report"
    kernels: tuple[Inspection, ...]
    traced: tuple[Traced, ...] = ()
    notes: tuple[Note, ...] = ()
    folder: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of ``moeprof inspect --json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": {"path": self.source, "kind": self.kind},
            "folder": None if self.folder is None else str(self.folder),
            "kernels": [encode(kernel) for kernel in self.kernels],
            "traced": [encode(traced) for traced in self.traced],
            "notes": [encode(n) for n in self.notes],
        }


def inspections(
    pages: Pages, pattern: str, wanted: dict[str, tuple[str, ...]], named: tuple[str, ...] = ()
) -> tuple[Inspection, ...]:
    """Each kernel and launch shape whose name the regular expression finds, the longest first.

    Args:
        wanted: section -> counters; a missing one is reported.
        named: counters that the user asked for by name.
    """
    return tuple(_inspection(pages, kernel, wanted, named) for kernel in counted(pages.counters, pattern))


def _inspection(
    pages: Pages, kernel: Counted, wanted: dict[str, tuple[str, ...]], named: tuple[str, ...]
) -> Inspection:
    values = kernel.values
    speed, memory = speed_of_light.speed_of_light(values), memory_chart.memory_chart(values)
    executed = [] if pages.sass is None else hot_lines.executed(pages.sass, kernel.name)
    flops = operations.operations(values, speed.duration_ns, executed)
    return Inspection(
        kernel=kernel.name, grid=kernel.grid, block=kernel.block, device=kernel.device, launches=kernel.launches,
        speed=speed, flops=flops, roofs=operations.roofs(flops, memory.dram_bytes, speed.dram_peak_bytes_per_s),
        untold=operations.uncounted(values, flops), memory=memory, occupancy=occupancy.occupancy(values),
        scheduler=pipes.scheduler(values), states=states(values), pipes=pipes.pipes(values),
        rules=rules(pages.rules, kernel.launches),
        hot_source=() if pages.lines is None else hot_lines.hot_source(pages.lines, kernel.name, HOT_LINES),
        hot_sass=() if pages.sass is None else hot_lines.hot_sass(pages.sass, kernel.name, HOT_LINES),
        compiled={}, missing=_missing(values, wanted), asked={name: values.get(name) for name in named},
    )  # fmt: skip


def _missing(values: dict[str, float], wanted: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Section -> its counters that the report lacks. A rate a cycle replaces the count that it was computed from."""
    absent = {
        section: tuple(m for m in metrics if m not in values and f"{m}.per_cycle_elapsed" not in values)
        for section, metrics in wanted.items()
    }
    return {section: metrics for section, metrics in absent.items() if metrics}


def states(values: dict[str, float]) -> tuple[State, ...]:
    """The warp states that were counted and not 0, the longest first; their shares sum to 1."""
    share = shares(values)
    counted_states = [State(name, WARP_STATES.get(name, ""), n, share[name]) for name, n in cycles(values).items() if n]
    return tuple(sorted(counted_states, key=lambda state: (-state.cycles, state.name)))


def rules(rows: Iterable[dict[str, Any]], launches: tuple[int, ...]) -> tuple[Rule, ...]:
    """What ncu's rules reported of some launches, each rule once, at the launch where it estimates most; the best first."""
    best: dict[tuple[str, str], Rule] = {}
    for row in rows:
        if row["launch"] in launches:
            rule = Rule(row["rule"], row["type"], row["description"], row["speedup_percent"])
            key = (rule.name, rule.type)
            if key not in best or (rule.speedup_percent or 0.0) > (best[key].speedup_percent or 0.0):
                best[key] = rule
    return tuple(
        sorted(best.values(), key=lambda rule: (-(rule.speedup_percent or 0.0), rule.type != "OPT", rule.name))
    )
