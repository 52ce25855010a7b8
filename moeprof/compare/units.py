"""What a unit of work is in two traces, and the evidence that a unit is the same work in both (docs/reference/metrics.md)."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from moeprof.analysis.device import KERNELS, one_of
from moeprof.errors import UsageError
from moeprof.trace import Trace
from moeprof.units import short_kernel

Source = Literal["named", "counted", "range", "steps", "whole"]
AS_OFTEN = 0.02  # of its count per unit, by which a kernel may differ and still count as launched equally often
SAME_SHAPES = 0.9  # of a kernel's launches per unit that need launch shapes of the other trace
MOST_RESIZED = (
    0.2  # of the kernels launched equally often that may have other shapes: one that was tuned, not another size
)
LEAST_ANCHORS = 0.15  # of the kernels of the trace with fewer names that must be launched alike in both
SAME_RATIO = 0.005  # by which ratios of counts may differ and still be one ratio
FEW_SCALED = 3  # kernels with one common ratio of counts, below which it is chance
SHAPE = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z"]
NUMBERS = re.compile(r"\d+")
BRACES = re.compile(r"\(.*\)|\[.*\]|\{.*\}|<.*>")


@dataclass(frozen=True)
class Wanted:
    """What the user says of the unit: its ``name``, how many units each trace has (``counts``), or that both are the same work as a
    ``whole``. ``same_command``: both programs ran the same command line, apart from one word at most."""

    name: str | None = None
    counts: tuple[float, float] | None = None
    whole: bool = False
    same_command: bool = False


@dataclass(frozen=True)
class SameWork:
    """Kernels that both traces have, by what their launches per unit say of the work; numbers of kernel names.

    Args:
        alike: launched equally often, with the same shapes.
        resized: launched equally often, with other shapes: another problem size.
        scaled: with counts that differ by one common ``ratio`` (B over A): more repetitions.
        names: of the trace that has fewer.
        shapes_known: whether the traces contain launch shapes.
    """

    alike: int
    resized: int
    scaled: int
    ratio: float
    names: int
    shapes_known: bool

    @property
    def established(self) -> bool:
        """Whether a unit is the same work in both, as far as the launches tell."""
        return (
            self.shapes_known
            and self.alike >= max(1, LEAST_ANCHORS * self.names)
            and self.resized <= MOST_RESIZED * (self.alike + self.resized)
            and not self.repeated
        )

    @property
    def repeated(self) -> bool:
        """Whether one trace repeats more often per unit."""
        return self.scaled >= FEW_SCALED and 2 * self.scaled > self.alike


def same_work(before: pd.DataFrame, after: pd.DataFrame, units: tuple[float, float], exact: bool = False) -> SameWork:
    """The evidence of the operations of two traces with so many ``units``.

    Args:
        exact: counts must be equal, since the units are whole programs and one step more is other work.
    """
    first, second = _kernels(before), _kernels(after)
    shapes = [_shapes(side, of) for side, of in zip((first, second), units, strict=True)]
    counts = [{name: sum(of.values()) for name, of in side.items()} for side in shapes]
    alike = resized = 0
    ratios = []
    for name in counts[0].keys() & counts[1].keys():
        a, b = counts[0][name], counts[1][name]
        if abs(a - b) > (1e-9 if exact else AS_OFTEN * max(a, b)):
            ratios.append(b / a)
            continue
        common = sum(min(count, shapes[1][name].get(shape, 0.0)) for shape, count in shapes[0][name].items())
        alike, resized = (alike + 1, resized) if common >= SAME_SHAPES * max(a, b) else (alike, resized + 1)
    scaled, ratio = _commonest(ratios)
    known = all(len(side) and bool((side["grid_x"] > 0).any()) for side in (first, second))
    return SameWork(alike, resized, scaled, ratio, min(map(len, counts)), known)


def _kernels(ops: pd.DataFrame) -> pd.DataFrame:
    return ops[one_of(ops["kind"], KERNELS)]


def _shapes(kernels: pd.DataFrame, units: float) -> dict[str, dict[tuple[int, ...], float]]:
    """How often per unit each kernel was launched with each shape."""
    counted: dict[str, dict[tuple[int, ...], float]] = {}
    sizes = kernels.groupby([kernels["name"].astype(str), *SHAPE], sort=True).size()
    for key, count in sizes.items():
        name, *shape = key
        counted.setdefault(str(name), {})[tuple(int(x) for x in shape)] = int(count) / units
    return counted


def _commonest(ratios: list[float]) -> tuple[int, float]:
    """How many ratios are the commonest one, and that ratio; (0, 1) without any."""
    if not ratios:
        return 0, 1.0
    logs = np.log(np.array(ratios))
    near = (np.abs(logs[:, None] - logs[None, :]) <= SAME_RATIO).sum(axis=1)
    best = int(near.argmax())
    return int(near[best]), float(ratios[best])


def family(name: str) -> str:
    """The name of a range without its numbers and what is in braces.

    >>> family("step_12"), family("execute_64(7)")
    ('step_#', 'execute_#(…)')
    """
    return NUMBERS.sub("#", BRACES.sub(lambda match: f"{match[0][0]}…{match[0][-1]}", name))


def folded(trace: Trace) -> Trace:
    """The trace with each range under the name of its family."""
    return _renamed(trace, {name: family(name) for name in _names(trace)})


def _names(trace: Trace) -> list[str]:
    return sorted(set(trace.ranges["name"].astype(str)))


def _renamed(trace: Trace, names: dict[str, str]) -> Trace:
    text = trace.ranges["name"].astype(str)
    changed = pd.Categorical(text.map(lambda name: names.get(name, name)))
    return replace(trace, ranges=trace.ranges.assign(name=changed))


def with_range(trace: Trace, name: str) -> Trace | None:
    """The trace in which ``name`` is a range: of that name, of that family, or that it matches as a regular expression. None if
    there is none.

    Raises:
        UsageError: it is no name and no regular expression.
    """
    names = _names(trace)
    if name in names:
        return trace
    if name in {family(n) for n in names}:
        return folded(trace)
    pattern = pattern_of(name)
    matching = [n for n in names if pattern.search(n)]
    return _renamed(trace, dict.fromkeys(matching, name)) if matching else None


def pattern_of(name: str) -> re.Pattern[str]:
    """The regular expression that a user's name of a unit is."""
    try:
        return re.compile(name)
    except re.error as error:
        raise UsageError(
            f"--unit {name!r} is not a regular expression: {error}", "escape braces, such as \\("
        ) from error


def hint(name: str, traces: Iterable[Trace]) -> str:
    """What to write in place of a unit that a trace does not have."""
    families: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for trace in traces:
        families.update(family(str(n)) for n in trace.ranges["name"])
        kernels.update(short_kernel(str(n)) for n in _kernels(trace.ops)["name"])
    near = difflib.get_close_matches(name, [*families, *kernels], 1)
    known = ", ".join(repr(n) for n, _ in families.most_common(6)) or "none"
    return f"did you mean {near[0]!r}?" if near else f"ranges: {known}; a kernel's name works too"
