"""What changed between the operations and calls of two traces: kernels matched by name, launch shape and place; counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from moeprof.analysis.device import KERNELS, one_of
from moeprof.findings.what_if import TINY_BYTES
from moeprof.report.narrative.sentences import ms
from moeprof.trace.classify import BLOCKING

CHANGED = 0.05  # of a kernel's time or count a unit, from which it counts as changed
AS_OFTEN = 0.15  # of its count a unit, by which a kernel's replacement may differ: units are estimated
TELL = 0.02  # of a unit's time: a smaller change is not told
NAMED = 3  # kernels that the words name

Units = tuple[float, float]


class Sided(Protocol):
    """What ``counts`` reads of a part of a trace."""

    @property
    def ops(self) -> pd.DataFrame: ...
    @property
    def calls(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class Kernel:
    """Kernels of one name, a unit of work: ``status`` same, changed, replaced (by ``other``), new or gone."""

    name: str
    status: str
    other: str | None
    count_before: float
    count_after: float
    before_ns: float
    after_ns: float

    @property
    def delta_ns(self) -> float:
        """after - before."""
        return self.after_ns - self.before_ns


@dataclass(frozen=True)
class Count:
    """How often something happens in a unit of work."""

    what: str
    before: float
    after: float


def amount(before: pd.DataFrame, after: pd.DataFrame) -> float:
    """How many times the work of A was done in B: the ratio of the counts of the kernels that both ran, by their time."""
    one, other = _by_name(before), _by_name(after)
    both = one.add_suffix("_a").join(other.add_suffix("_b"), how="inner")
    if not len(both):
        return 1.0
    ratios = (both["count_b"] / both["count_a"]).to_numpy()
    weights = (both["ns_a"] + both["ns_b"]).to_numpy()
    order = np.argsort(ratios)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(ratios[order][min(middle, len(order) - 1)])


def _by_name(ops: pd.DataFrame) -> pd.DataFrame:
    kernels = ops[one_of(ops["kind"], KERNELS)]
    spent = (kernels["end_ns"] - kernels["start_ns"]).groupby(kernels["name"].astype(str)).agg(["size", "sum"])
    return spent.set_axis(["count", "ns"], axis=1)


def kernels(before: pd.DataFrame, after: pd.DataFrame, units: Units) -> tuple[Kernel, ...]:
    """Every kernel of either trace, a unit of work, the largest change of time first."""
    one, other = _by_name(before) / units[0], _by_name(after) / units[1]
    common = one.index.intersection(other.index)
    found = [_kernel(n, _status(one.loc[n], other.loc[n]), None, one.loc[n], other.loc[n]) for n in common]
    left, right = one.drop(common), other.drop(common)
    for name, replacement in _replaced(before, after, left, right).items():
        found.append(_kernel(name, "replaced", replacement, left.loc[name], right.loc[replacement]))
        left, right = left.drop(name), right.drop(replacement)
    none = pd.Series({"count": 0.0, "ns": 0.0})
    found += [_kernel(n, "gone", None, left.loc[n], none) for n in left.index]
    found += [_kernel(n, "new", None, none, right.loc[n]) for n in right.index]
    return tuple(sorted(found, key=lambda k: (-abs(k.delta_ns), k.name)))


def _kernel(name: str, status: str, other: str | None, a: pd.Series, b: pd.Series) -> Kernel:
    return Kernel(str(name), status, other, float(a["count"]), float(b["count"]), float(a["ns"]), float(b["ns"]))


def _status(a: pd.Series, b: pd.Series) -> str:
    far = any(abs(b[key] - a[key]) > CHANGED * max(a[key], b[key]) for key in ("count", "ns"))
    return "changed" if far else "same"


def _replaced(before: pd.DataFrame, after: pd.DataFrame, left: pd.DataFrame, right: pd.DataFrame) -> dict[str, str]:
    """Kernels of A that B runs under another name: with the same launch shape and as often, or at the same place in order."""
    found: dict[str, str] = {}
    for key in (_shape, _place):
        ours, theirs = key(before, left.index), key(after, right.index)
        for name in [n for n in left.index if n not in found]:
            alike = [n for n in right.index if n not in found.values() and theirs.get(n) == ours.get(name) is not None]
            alike = [n for n in alike if abs(right["count"][n] - left["count"][name]) <= AS_OFTEN * left["count"][name]]
            if len(alike) == 1:
                found[name] = alike[0]
    return found


def _of(ops: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    return ops[ops["name"].astype(str).isin(names).to_numpy() & one_of(ops["kind"], KERNELS)]


def _shape(ops: pd.DataFrame, names: pd.Index) -> dict[str, object]:
    """The commonest launch shape of each kernel."""
    mine = _of(ops, names)
    columns = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z"]
    return {str(n): rows[columns].value_counts().index[0] for n, rows in mine.groupby(mine["name"].astype(str))}


def _place(ops: pd.DataFrame, names: pd.Index) -> dict[str, object]:
    """The commonest pair of neighbours of each kernel, in the order of starts in its stream."""
    text = ops["name"].astype(str)
    streams = [ops["context"], ops["stream"]]
    around = pd.DataFrame(
        {"name": text, "before": text.groupby(streams).shift(1), "after": text.groupby(streams).shift(-1)}
    )
    mine = around[around["name"].isin(names)].dropna()
    mine = mine[~mine["before"].isin(names) & ~mine["after"].isin(names)]
    return {str(n): rows[["before", "after"]].value_counts().index[0] for n, rows in mine.groupby("name")}


def counts(before: Sided, after: Sided, units: Units) -> tuple[Count, ...]:
    """Kernels, graph launches, waits, copies, tiny copies and their bytes, allocations: a unit of work."""
    one, other = _counted(before), _counted(after)
    return tuple(Count(what, one[what] / units[0], other[what] / units[1]) for what in one)


def _counted(part: Sided) -> dict[str, float]:
    ops, kinds = part.ops, part.calls["kind"]
    copies = ops[ops["kind"] == "copy"]
    tiny = copies[(copies["bytes"] >= 0) & (copies["bytes"] < TINY_BYTES)]
    return {
        "kernels": float(one_of(ops["kind"], KERNELS).sum()),
        "graph launches": float((kinds == "graph_launch").sum()),
        "waits of the host": float(kinds.isin(BLOCKING).sum()),
        "copies": float(len(copies)),
        "tiny copies": float(len(tiny)),
        "bytes in tiny copies": float(tiny["bytes"].sum()),
        "allocations": float((kinds == "alloc").sum()),
    }


def words(
    unit: str,
    before_ns: int,
    after_ns: int,
    first: Mapping[str, int],
    second: Mapping[str, int],
    found: tuple[Count, ...],
    changed: tuple[Kernel, ...],
) -> tuple[str, ...]:
    """What changed, in sentences: the time, where it went, waits that became tiny copies, and the kernels."""
    count = {c.what: c for c in found}
    ratio = after_ns / before_ns if before_ns else 1.0
    told = [f"{unit}: {ms(before_ns)} in A, {ms(after_ns)} in B ({ratio:.2f} times the traced time)."]
    shifts = sorted(((second[k] - first[k], k) for k in first), key=lambda x: -abs(x[0]))
    large = [(d, k) for d, k in shifts if abs(d) >= TELL * max(before_ns, 1)][:NAMED]
    if large:
        told.append(
            "Where it went: "
            + ", ".join(
                f"{k.removesuffix('_ns').replace('_', ' ')} {'+' if d > 0 else '-'}{ms(abs(d))}" for d, k in large
            )
            + "."
        )
    told += _moved_waits(before_ns, after_ns, first, second, count)
    gone = [k for k in changed if k.status != "same" and abs(k.delta_ns) >= TELL * max(before_ns, 1)][:NAMED]
    if gone:
        told.append("Kernels: " + "; ".join(_told(k) for k in gone) + ".")
    return tuple(told)


def _told(kernel: Kernel) -> str:
    name = kernel.name if len(kernel.name) <= 60 else kernel.name[:59] + "…"
    change = (
        f"{ms(kernel.before_ns)} to {ms(kernel.after_ns)}, {kernel.count_before:.1f} to {kernel.count_after:.1f} times"
    )
    return f"{name} {kernel.status}{f' by {kernel.other[:60]}' if kernel.other else ''} ({change})"


def _moved_waits(
    before_ns: int, after_ns: int, first: Mapping[str, int], second: Mapping[str, int], count: Mapping[str, Count]
) -> list[str]:
    """Waits that turned into tiny copies: a wait that moved is not a wait that went."""
    waits, tiny, size = count["waits of the host"], count["tiny copies"], count["bytes in tiny copies"]
    fewer, more = waits.before - waits.after, tiny.after - tiny.before
    if fewer < max(1.0, 0.3 * waits.before) or more < 0.2 * fewer:
        return []
    stalled = [
        sum(side[k] for k in ("launch_ns", "sync_ns", "host_ns", "dependency_ns", "edge_ns", "exposed_copy_ns"))
        for side in (first, second)
    ]
    change = stalled[1] - stalled[0]
    verdict = (
        f"idle and exposed copy time rose by {ms(change)}: the waits moved into copies, they did not go"
        if change > 0
        else f"idle and exposed copy time fell by {ms(-change)}"
    )
    faster = "although the time fell" if after_ns < before_ns and change > 0 else "and"
    return [
        f"{fewer:,.0f} waits of the host became {more:,.0f} copies of {size.after / max(tiny.after, 1):,.0f} bytes; {faster} {verdict}."
    ]
