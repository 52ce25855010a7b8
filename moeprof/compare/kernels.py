"""What changed between the operations and calls of two traces: kernels matched by name, launch shape and place; counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from moeprof.analysis.device import KERNELS, one_of
from moeprof.analysis.kernel_families import COMMUNICATION, GRAPH, family_of
from moeprof.findings.what_if import TINY_BYTES
from moeprof.trace.classify import BLOCKING

CHANGED = 0.05  # of a kernel's time or count per unit, from which it counts as changed
AS_OFTEN = 0.15  # of its count per unit, by which a kernel's replacement may differ: units are estimated

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
class FamilyCost:
    """Kernels of one family, a unit of work."""

    name: str
    count_before: float
    count_after: float
    before_ns: float
    after_ns: float


@dataclass(frozen=True)
class Count:
    """How often something happens in a unit of work."""

    what: str
    before: float
    after: float


def _by_name(ops: pd.DataFrame) -> pd.DataFrame:
    kernels = ops[one_of(ops["kind"], KERNELS)]
    spent = (kernels["end_ns"] - kernels["start_ns"]).groupby(kernels["name"].astype(str)).agg(["size", "sum"])
    return spent.set_axis(["count", "ns"], axis=1)


def families(before: pd.DataFrame, after: pd.DataFrame, units: Units) -> tuple[FamilyCost, ...]:
    """The families of either trace, a unit of work, the most time first."""
    sides = []
    for ops, count in zip((before, after), units, strict=True):
        by_name = _by_name(ops) / count
        sides.append(by_name.groupby([_family(ops, name) for name in by_name.index]).sum())
    both = sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="outer").fillna(0.0)
    rows = (
        FamilyCost(str(name), *(float(x) for x in row))
        for name, *row in both[["count_a", "count_b", "ns_a", "ns_b"]].itertuples()
    )
    return tuple(sorted(rows, key=lambda f: (-max(f.before_ns, f.after_ns), f.name)))


def _family(ops: pd.DataFrame, name: str) -> str:
    """The family of a kernel of these operations."""
    kind = ops["kind"].to_numpy()[(ops["name"].astype(str) == name).to_numpy().argmax()]
    return {"comm": COMMUNICATION, "graph": GRAPH}.get(str(kind), "") or family_of(name)


def kernels(before: pd.DataFrame, after: pd.DataFrame, units: Units) -> tuple[Kernel, ...]:
    """Every kernel of either trace, a unit of work, the largest change of time first."""
    first, second = _by_name(before) / units[0], _by_name(after) / units[1]
    common = first.index.intersection(second.index)
    compared = [_kernel(n, _status(first.loc[n], second.loc[n]), None, first.loc[n], second.loc[n]) for n in common]
    left, right = first.drop(common), second.drop(common)
    for name, replacement in _replaced(before, after, left, right).items():
        compared.append(_kernel(name, "replaced", replacement, left.loc[name], right.loc[replacement]))
        left, right = left.drop(name), right.drop(replacement)
    none = pd.Series({"count": 0.0, "ns": 0.0})
    compared += [_kernel(n, "gone", None, left.loc[n], none) for n in left.index]
    compared += [_kernel(n, "new", None, none, right.loc[n]) for n in right.index]
    return tuple(sorted(compared, key=lambda k: (-abs(k.delta_ns), k.name)))


def _kernel(name: str, status: str, replacement: str | None, a: pd.Series, b: pd.Series) -> Kernel:
    return Kernel(str(name), status, replacement, float(a["count"]), float(b["count"]), float(a["ns"]), float(b["ns"]))


def _status(a: pd.Series, b: pd.Series) -> str:
    far = any(abs(b[key] - a[key]) > CHANGED * max(a[key], b[key]) for key in ("count", "ns"))
    return "changed" if far else "same"


def _replaced(before: pd.DataFrame, after: pd.DataFrame, left: pd.DataFrame, right: pd.DataFrame) -> dict[str, str]:
    """Kernels of A that B runs under another name: with the same launch shape and as often, or at the same place in order."""
    replaced: dict[str, str] = {}
    for key in (_shape, _place):
        ours, theirs = key(before, left.index), key(after, right.index)
        for name in [n for n in left.index if n not in replaced]:
            alike = [
                n for n in right.index if n not in replaced.values() and theirs.get(n) == ours.get(name) is not None
            ]
            alike = [n for n in alike if abs(right["count"][n] - left["count"][name]) <= AS_OFTEN * left["count"][name]]
            if len(alike) == 1:
                replaced[name] = alike[0]
    return replaced


def _of(ops: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    return ops[ops["name"].astype(str).isin(names).to_numpy() & one_of(ops["kind"], KERNELS)]


def _shape(ops: pd.DataFrame, names: pd.Index) -> dict[str, object]:
    """The commonest launch shape of each kernel."""
    launches = _of(ops, names)
    columns = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z"]
    return {str(n): rows[columns].value_counts().index[0] for n, rows in launches.groupby(launches["name"].astype(str))}


def _place(ops: pd.DataFrame, names: pd.Index) -> dict[str, object]:
    """The commonest pair of neighbours of each kernel, in the order of starts in its stream."""
    text = ops["name"].astype(str)
    streams = [ops["context"], ops["stream"]]
    around = pd.DataFrame(
        {"name": text, "before": text.groupby(streams).shift(1), "after": text.groupby(streams).shift(-1)}
    )
    places = around[around["name"].isin(names)].dropna()
    places = places[~places["before"].isin(names) & ~places["after"].isin(names)]
    return {str(n): rows[["before", "after"]].value_counts().index[0] for n, rows in places.groupby("name")}


def counts(before: Sided, after: Sided, units: Units) -> tuple[Count, ...]:
    """Kernels, graph launches, waits, copies, tiny copies and their bytes, allocations: a unit of work."""
    first, second = _counted(before), _counted(after)
    return tuple(Count(what, first[what] / units[0], second[what] / units[1]) for what in first)


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
