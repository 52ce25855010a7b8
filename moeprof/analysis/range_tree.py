"""GPU time by the range that launched it: push/pop ranges as a tree, with ids and numbers in their names folded.

Each nanosecond in which a device is busy belongs to the operation that began first, and so to the innermost range around
its launch call on the calling thread. The parts of a tree add up to the busy time of all devices exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times, newly_covered
from moeprof.analysis.model import RangeNode
from moeprof.trace import Trace

Kind = Literal["range", "operation", "outside"]
OPERATION, UNRANGED = -2, -3  # stand for the number of a range's node where there is none
OUTSIDE = "outside any range"
ALL = "all GPU work"
LEAST_SHARE = 0.001  # of the GPU time: a smaller node is left out, and its time stays in its parent
MOST_NODES = 600
DEEPEST = 64  # levels; deeper ranges belong to their parent at this level
NUMBERED = r"(?<=layer|block|stage|batch|epoch|chunk)|(?<=step|iter|head|rank)|(?<=expert)"  # words before a number
TORCH_IDS = re.compile(r", (?:seq|op_id) = \d+")  # torch.autograd.profiler.emit_nvtx
FOLDED = re.compile(rf"\([^()]*\d[^()]*\)|0x[0-9a-f]+|(?:(?<![a-z0-9])|{NUMBERED})\d+(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class _Nest:
    """Ranges as a forest: ``parent`` is the row of the range around each (or -1), ``depth`` counts from 0."""

    starts: Times
    ends: Times
    thread: Times
    depth: Times
    parent: Times
    path: Times  # the number of each range's node
    nodes: list[tuple[int, int]]  # (parent's node or -1, template) of each node


def fold(name: str) -> str:
    """A range's name with its numbers and addresses as ``*``, and without the ids that torch adds.

    >>> fold("layers.12.mlp, seq = 46588, op_id = 995009")
    'layers.*.mlp'
    """
    name = TORCH_IDS.sub("", name) or name
    return FOLDED.sub(lambda match: "(*)" if match[0].startswith("(") else "*", name)


def range_tree(trace: Trace, devices: Sequence[DeviceView]) -> tuple[RangeNode, ...]:
    """The nodes of the tree, each after its parent, the largest first; empty where no range launched work.

    The first node is all GPU work. Below a range are the ranges inside it, and the operations that it launched itself.
    """
    nest, templates = _nest(trace)
    owner, busy, names = _owners(trace, devices, nest)
    if nest is None or not (owner >= 0).any():
        return ()
    count = len(nest.nodes)
    spent = np.zeros(count, dtype=np.int64)
    np.add.at(spent, owner[owner >= 0], busy[owner >= 0])
    total = spent.copy()
    for node in range(count - 1, -1, -1):  # children come after their parents
        parent = nest.nodes[node][0]
        if parent >= 0:
            total[parent] += total[node]
    instances = np.bincount(nest.path, minlength=count)
    leaves = pd.DataFrame({"node": owner, "name": names, "ns": busy}).groupby(["node", "name"], sort=True)["ns"]
    kernels = leaves.agg(["size", "sum"]).reset_index()
    return _assembled(nest, templates, total, instances, kernels, int(busy.sum()))


def _assembled(
    nest: _Nest, templates: Sequence[str], total: Times, instances: Times, kernels: pd.DataFrame, whole: int
) -> tuple[RangeNode, ...]:
    """Nodes that are large enough, parents first."""
    least = max(int(LEAST_SHARE * whole), 1)
    below: dict[
        int, list[tuple[int, Kind, str, int, int]]
    ] = {}  # node -> (time, kind, name, instances, node of a range)
    for number, (parent, template) in enumerate(nest.nodes):
        if total[number] >= least:
            below.setdefault(parent, []).append(
                (int(total[number]), "range", templates[template], int(instances[number]), number)
            )
    outside: list[tuple[int, Kind, str, int, int]] = []
    for node, name, size, ns in kernels.itertuples(index=False, name=None):
        entry: tuple[int, Kind, str, int, int] = (int(ns), "operation", str(name), int(size), OPERATION)
        if node < 0:
            outside.append(entry)
        elif ns >= least:
            below.setdefault(int(node), []).append(entry)
    lost = sum(entry[0] for entry in outside)
    if lost >= least:
        below.setdefault(-1, []).append((lost, "outside", OUTSIDE, sum(e[3] for e in outside), UNRANGED))
        below[UNRANGED] = [entry for entry in outside if entry[0] >= least]
    rows = [RangeNode(ALL, "all", None, 1, whole)]
    waiting = [(0, -1)]
    while waiting and len(rows) < MOST_NODES:
        parent, node = waiting.pop(0)
        for ns, kind, name, size, number in sorted(below.get(node, ()), key=lambda e: (-e[0], e[2]))[
            : MOST_NODES - len(rows)
        ]:
            rows.append(RangeNode(name, kind, parent, size, ns))
            if number != OPERATION:
                waiting.append((len(rows) - 1, number))
    return tuple(rows)


def _nest(trace: Trace) -> tuple[_Nest | None, Sequence[str]]:
    rows = trace.ranges
    rows = rows[(rows["style"] == "pushpop") & (rows["end_ns"] > rows["start_ns"])]
    if not len(rows):
        return None, ()
    thread = pd.factorize((rows["pid"].to_numpy().astype(np.int64) << 32) ^ rows["tid"].to_numpy())[0]
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    order = np.lexsort((-ends, starts, thread))
    thread, starts, ends = thread[order], starts[order], ends[order]
    codes, templates = _templates(rows.iloc[order])
    depth = _depths(thread, starts, ends)
    deep = depth < DEEPEST
    thread, starts, ends, codes, depth = (column[deep] for column in (thread, starts, ends, codes, depth))
    parent = np.full(len(starts), -1, dtype=np.int64)
    path = np.full(len(starts), -1, dtype=np.int64)
    nodes: list[tuple[int, int]] = []
    for level in range(int(depth.max()) + 1):
        here = np.flatnonzero(depth == level)
        if level:
            parent[here] = _around(np.flatnonzero(depth == level - 1), thread, starts, ends, thread[here], starts[here])
        above = np.where(parent[here] >= 0, path[parent[here]], -1)
        keys, distinct = pd.factorize((above + 1) * len(templates) + codes[here])
        path[here] = keys + len(nodes)
        nodes += [(int(key) // len(templates) - 1, int(key) % len(templates)) for key in distinct]
    return _Nest(starts, ends, thread, depth, parent, path, nodes), templates


def _templates(rows: pd.DataFrame) -> tuple[Times, list[str]]:
    """A number for each row's folded name; a name that nothing else folds onto stays as it is."""
    domain, name = rows["domain"].cat, rows["name"].cat
    keys, distinct = pd.factorize(
        domain.codes.to_numpy().astype(np.int64) * (len(name.categories) + 1) + name.codes.to_numpy()
    )
    width = len(name.categories) + 1
    names = [
        f"{domain.categories[k // width]}@{name.categories[k % width]}"
        if domain.categories[k // width]
        else str(name.categories[k % width])
        for k in (int(key) for key in distinct)
    ]
    groups: dict[str, list[int]] = {}
    for number, text in enumerate(names):
        groups.setdefault(fold(text), []).append(number)
    of_name = np.empty(len(names), dtype=np.int64)
    templates: list[str] = []
    for text, members in groups.items():
        of_name[members] = len(templates)
        templates.append(text if len(members) > 1 else names[members[0]])
    return of_name[keys], templates


def _depths(thread: Times, starts: Times, ends: Times) -> Times:
    """How many ranges of the same thread are open when each begins; rows are sorted by thread, start and falling end."""
    count = len(starts)
    times, owner = np.concatenate([starts, ends]), np.tile(thread, 2)
    begins = np.repeat([1, 0], count)
    rank = np.concatenate([np.arange(count), np.zeros(count, dtype=np.int64)])
    order = np.lexsort((rank, begins, times, owner))  # at one time ends come before starts
    opened = np.cumsum(np.where(begins[order] == 1, 1, -1))
    depth = np.empty(2 * count, dtype=np.int64)
    depth[order] = opened
    return depth[:count] - 1


def _around(rows: Times, thread: Times, starts: Times, ends: Times, threads: Times, times: Times) -> Times:
    """For each (thread, time) the last of ``rows`` that began on that thread until then and is still open; or -1."""
    innermost = np.full(len(times), -1, dtype=np.int64)
    for number in np.unique(threads):
        wanted, of_thread = np.flatnonzero(threads == number), rows[thread[rows] == number]
        if not len(of_thread):
            continue
        place = np.searchsorted(starts[of_thread], times[wanted], side="right") - 1
        row = of_thread[np.maximum(place, 0)]
        innermost[wanted] = np.where((place >= 0) & (ends[row] > times[wanted]), row, -1)
    return innermost


def _owners(trace: Trace, devices: Sequence[DeviceView], nest: _Nest | None) -> tuple[Times, Times, np.ndarray]:
    """For each operation of all devices the node that launched it (or -1), its share of the busy time, and its name."""
    owners, shares, names = [], [], []
    for view in devices:
        left, right = newly_covered(view.starts, view.ends)
        shares.append(right - left)
        names.append(view.ops["name"].astype(str).to_numpy(dtype=object))
        owners.append(np.full(len(view.ops), -1) if nest is None else _launchers(trace, view, nest))
    if not owners:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, dtype=object)
    return np.concatenate(owners), np.concatenate(shares), np.concatenate(names)


def _launchers(trace: Trace, view: DeviceView, nest: _Nest) -> Times:
    """The innermost node around each operation's launch call; in a trace without calls around the operation's own start."""
    ranges = trace.ranges
    keys = (ranges["pid"].to_numpy().astype(np.int64) << 32) ^ ranges["tid"].to_numpy()
    pushed = ((ranges["style"] == "pushpop") & (ranges["end_ns"] > ranges["start_ns"])).to_numpy()
    distinct = pd.unique(keys[pushed])
    if len(trace.calls):
        call = np.maximum(view.call, 0)
        times = trace.calls["start_ns"].to_numpy()[call]
        pids, tids = (trace.calls[c].to_numpy().astype(np.int64)[call] for c in ("pid", "tid"))
        threads = pd.Index(distinct).get_indexer((pids << 32) ^ tids)
        threads = np.where(view.call >= 0, threads, -1)
    else:
        times, threads = view.starts, np.full(len(view.ops), int(np.bincount(nest.thread).argmax()))
    node = np.full(len(times), -1, dtype=np.int64)
    for level in range(int(nest.depth.max()) + 1):
        row = _around(np.flatnonzero(nest.depth == level), nest.thread, nest.starts, nest.ends, threads, times)
        node = np.where(row >= 0, nest.path[np.maximum(row, 0)], node)
    return node
