"""The passes of a loop, each with its ledger, and what the slow ones have more of than the pass of median length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from moeprof.analysis.causes import idle_causes
from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times
from moeprof.analysis.kernel_costs import owners
from moeprof.analysis.kernel_families import COMMUNICATION
from moeprof.analysis.ledger import gaps
from moeprof.analysis.model import Excess, Idle, Ledger, Pass, Passes, SlowPass
from moeprof.analysis.projection import projected, tiled
from moeprof.errors import TraceError
from moeprof.findings.steady_state import LEAST_PASSES, Focus, focus
from moeprof.trace import Trace

REGULAR = (0.5, 2.0)  # of the median distance: passes whose distances lie outside are no loop
LEAST_REACH = 0.6  # of the part that repeats that its passes must reach over
SLOW = 1.1  # times the median pass from which a further pass is explained; the slowest one is in any case
MOST_SLOW = 3
MOST_EXCESS = 6
LEAST_EXCESS = 0.05  # of what a slow pass takes longer: less is not named


@dataclass(frozen=True)
class Span:
    """One repetition of a loop, before its ledger is known."""

    start_ns: int
    end_ns: int
    label: str


def spans_of(trace: Trace, view: DeviceView, judged: Focus | None = None) -> tuple[Span, ...]:
    """The passes of a device: the instances of its repeated range, else from one appearance to the next of an operation that
    comes once a pass; none where nothing repeats. ``judged``: the part that repeats, where the caller has it."""
    if not len(view.ops):
        return ()
    judged = focus(trace, view) if judged is None else judged
    return _ranged(trace, view, judged) if judged.spans else _recurring(view, judged)


def median_place(lengths: Sequence[int] | Times) -> int:
    """The place of the pass of median length: of two the shorter, of equals the first."""
    return int(np.argsort(np.asarray(lengths), kind="stable")[(len(lengths) - 1) // 2])


def passes_of(trace: Trace, view: DeviceView, judged: Focus | None = None) -> Passes | None:
    """The passes of a device with their ledgers; None where nothing repeats."""
    spans = spans_of(trace, view, judged)
    if len(spans) < LEAST_PASSES:
        return None
    passes = _split(view, spans)
    lengths = np.array([p.span_ns for p in passes], dtype=np.int64)
    median = median_place(lengths)
    order = np.argsort(-lengths, kind="stable")
    slow = [int(i) for n, i in enumerate(order[:MOST_SLOW]) if lengths[i] > (SLOW if n else 1) * lengths[median]]
    what = spans[0].label.rpartition(" ")[0] or spans[0].label
    explained = tuple(
        SlowPass(i, int(lengths[i] - lengths[median]), _excess(view, passes[i], passes[median])) for i in slow
    )
    return Passes(view.index, what, median, passes, explained)


def main_spans(of_devices: Sequence[Passes]) -> tuple[Span, ...]:
    """The passes of the device whose passes hold the most compute; none where no device repeats."""
    main = max(of_devices, key=lambda of: (sum(p.ledger.compute_ns for p in of.passes), -of.device), default=None)
    return () if main is None else tuple(Span(p.start_ns, p.end_ns, p.name) for p in main.passes)


def _split(view: DeviceView, spans: Sequence[Span]) -> tuple[Pass, ...]:
    """The ledger of each pass. A gap between two passes belongs to the first, under the cause that the next one's launch names.

    Raises:
        TraceError: the parts do not sum to a pass (a defect of moeprof, never of the trace).
    """
    starts, ends = (np.array([getattr(s, key) for s in spans], dtype=np.int64) for key in ("start_ns", "end_ns"))
    covered = np.diff([reach.covered(starts, ends) for reach in view.reaches], axis=0, prepend=0)
    idle_gaps = gaps(view, int(starts[0]), int(ends.max()))
    owner = np.searchsorted(starts, idle_gaps.starts, side="right") - 1
    inside = (owner >= 0) & (idle_gaps.ends <= ends[np.maximum(owner, 0)])
    parts = []
    for ns in (idle_gaps.launch, idle_gaps.sync, idle_gaps.host, idle_gaps.dependency):
        sums = np.zeros(len(spans), dtype=np.int64)
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
            span.label, span.start_ns, span.end_ns, int(lengths[i]),
            Ledger(*(int(ns) for ns in (*covered[:, i], idle[i]))), Idle(*(int(part[i]) for part in (*parts, edge))),
            {name: int(ns[i]) for name, ns in of_family.items() if ns[i]},
        )
        for i, span in enumerate(spans)
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


def _ranged(trace: Trace, view: DeviceView, judged: Focus) -> tuple[Span, ...]:
    """The instances of the range that marks the passes, each until the next one's first operation."""
    name, spans = judged.label.rpartition(" x ")[0], set(judged.spans)
    rows = projected(trace, view.index)
    rows = rows[(rows["gpu_ops"] > 0) & (rows["name"] == name)]
    columns = (rows[key].to_numpy() for key in ("start_ns", "first_ns", "last_ns"))
    instances = sorted(
        (int(first), int(last)) for begin, first, last in zip(*columns, strict=True) if (begin, last) in spans
    )
    ends = tiled(instances)
    return tuple(
        Span(first, end, f"{name} {i}") for i, ((first, _), end) in enumerate(zip(instances, ends, strict=True))
    )


def _recurring(view: DeviceView, judged: Focus) -> tuple[Span, ...]:
    """From each appearance of the rarest operation that comes regularly to the next."""
    if not judged.repeats:
        return ()
    rows = np.flatnonzero(judged.pieces.contains(view.starts))
    kinds, starts = view.signatures[rows], view.starts[rows]
    reach = judged.end_ns - judged.start_ns
    best: tuple[int, int] | None = None
    marks = starts[:0]
    order = np.argsort(kinds, kind="stable")
    _, first = np.unique(kinds[order], return_index=True)
    for places in np.split(order, first[1:]):
        times = starts[np.sort(places)]
        if len(times) <= LEAST_PASSES or (best is not None and len(times) > best[0]):
            continue
        gap = np.diff(times)
        usual = float(np.median(gap))
        regular = usual > 0 and gap.min() >= REGULAR[0] * usual and gap.max() <= REGULAR[1] * usual
        if (
            regular
            and times[-1] - times[0] >= LEAST_REACH * reach
            and (best is None or (len(times), int(times[0])) < best)
        ):
            best, marks = (len(times), int(times[0])), times
    return tuple(Span(int(a), int(b), f"pass {i}") for i, (a, b) in enumerate(pairwise(marks)))
