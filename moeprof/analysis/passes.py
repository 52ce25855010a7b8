"""The steps of a program, each with its ledger, and what the slow ones have more of than the pass of median length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from moeprof.analysis import steps
from moeprof.analysis.causes import idle_causes
from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times
from moeprof.analysis.kernel_costs import owners
from moeprof.analysis.kernel_families import COMMUNICATION
from moeprof.analysis.ledger import gaps
from moeprof.analysis.model import Excess, Idle, Ledger, Pass, Passes, SlowPass
from moeprof.errors import TraceError
from moeprof.trace import Trace

SLOW = 1.1  # times the median pass from which a further pass is explained; the slowest one is in any case
MOST_SLOW = 3
MOST_EXCESS = 6
LEAST_EXCESS = 0.05  # of what a slow pass takes longer: less is not named


def median_place(lengths: Sequence[int] | Times) -> int:
    """The place of the pass of median length: of two the shorter, of equals the first."""
    return int(np.argsort(np.asarray(lengths), kind="stable")[(len(lengths) - 1) // 2])


def passes_of(trace: Trace, view: DeviceView) -> Passes | None:
    """The steps of a device with their ledgers; None where no repetition covers enough of its launches."""
    step_spans = steps.find(trace, view)
    if step_spans is None:
        return None
    word: Literal["step", "pass"] = "step" if step_spans.sure else "pass"  # a period that may be a layer is a pass
    passes = _split(view, step_spans.starts, step_spans.ends, word)
    lengths = np.array([p.span_ns for p in passes], dtype=np.int64)
    median = median_place(lengths)
    order = np.argsort(-lengths, kind="stable")
    slow = [int(i) for n, i in enumerate(order[:MOST_SLOW]) if lengths[i] > (SLOW if n else 1) * lengths[median]]
    explained = tuple(
        SlowPass(i, int(lengths[i] - lengths[median]), _excess(view, passes[i], passes[median])) for i in slow
    )
    return Passes(view.index, word, median, passes, explained)


def _split(view: DeviceView, starts: Times, ends: Times, word: str) -> tuple[Pass, ...]:
    """The ledger of each pass. A gap between two passes belongs to the first, under the cause that the next one's launch names.

    Raises:
        TraceError: the parts do not sum to a pass (a defect of moeprof, never of the trace).
    """
    covered = np.diff([reach.covered(starts, ends) for reach in view.reaches], axis=0, prepend=0)
    idle_gaps = gaps(view, int(starts[0]), int(ends.max()))
    owner = np.searchsorted(starts, idle_gaps.starts, side="right") - 1
    inside = (owner >= 0) & (idle_gaps.ends <= ends[np.maximum(owner, 0)])
    parts = []
    for ns in (idle_gaps.launch, idle_gaps.sync, idle_gaps.host, idle_gaps.dependency):
        sums = np.zeros(len(starts), dtype=np.int64)
        np.add.at(sums, owner[inside], ns[inside])
        parts.append(sums)
    of_family = {name: owned.covered(starts, ends) for name, owned in owners(view).items() if name != COMMUNICATION}
    lengths = ends - starts
    idle = lengths - covered.sum(axis=0)
    edge = idle - np.sum(parts, axis=0)  # only where a pass ends in the middle of a gap
    if (idle < 0).any() or (edge < 0).any():
        raise TraceError(f"the passes of device {view.index} do not sum to their length", "report this as a bug")
    return tuple(
        Pass(
            f"{word} {i}", int(starts[i]), int(ends[i]), int(lengths[i]),
            Ledger(*(int(ns) for ns in (*covered[:, i], idle[i]))), Idle(*(int(part[i]) for part in (*parts, edge))),
            {name: int(ns[i]) for name, ns in of_family.items() if ns[i]},
        )
        for i in range(len(starts))
    )  # fmt: skip


def _excess(view: DeviceView, slow: Pass, median: Pass) -> tuple[Excess, ...]:
    """What the slow pass has more of: parts of the ledger, causes of idle time with their calls, kernels by name."""
    least = LEAST_EXCESS * (slow.span_ns - median.span_ns)
    rows = [
        Excess("owner", key.removesuffix("_ns"), ns - getattr(median.ledger, key), 0)
        for key, ns in vars(slow.ledger).items()
        if key
        in ("exposed_copy_ns", "exposed_migration_ns", "exposed_memset_ns")  # kernels and idle time follow by name
    ]
    for kind, of in (("idle", _idle), ("kernel", _kernels)):
        more, usual = of(view, slow), of(view, median)
        rows += [
            Excess(kind, name, ns - usual.get(name, (0, 0))[0], count - usual.get(name, (0, 0))[1])  # type: ignore[arg-type]
            for name, (ns, count) in more.items()
        ]
    rows = [row for row in rows if row.ns > 0 and row.ns >= least]
    return tuple(sorted(rows, key=lambda row: (-row.ns, row.kind, row.name))[:MOST_EXCESS])


def _idle(view: DeviceView, of: Pass) -> dict[str, tuple[int, int]]:
    """Idle time and number of gaps by cause and call; the nanosecond more lets the next pass end the last gap."""
    sums: dict[str, tuple[int, int]] = {}
    for cause in idle_causes(view, of.start_ns, of.end_ns + 1):
        name = f"{cause.cause}: {cause.what}"
        ns, count = sums.get(name, (0, 0))
        sums[name] = (ns + cause.total_ns, count + cause.count)
    return sums


def _kernels(view: DeviceView, of: Pass) -> dict[str, tuple[int, int]]:
    """Time and number of the kernels that begin in the pass, by name."""
    rows = view.starting(of.start_ns, of.end_ns)
    rows = rows[view.is_kernel[rows]]
    names = view.ops["name"].cat
    codes, length = names.codes.to_numpy()[rows], view.ends[rows] - view.starts[rows]
    sums: dict[str, tuple[int, int]] = {}
    for code in np.unique(codes):
        of_name = codes == code
        sums[str(names.categories[code])] = (int(length[of_name].sum()), int(of_name.sum()))
    return sums
