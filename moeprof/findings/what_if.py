"""What a rule looks at: the judged part of one device's time, its gaps, its exposed copies, and "what if".

``replay`` answers what-if questions with a queue model. In the order of their starts each operation begins when the one
before it has ended and it is ready: ``end = max(end before + fixed, ready) + work``. ``work`` is the device time that no
earlier operation covers; ``ready`` is the start of an operation that the host submitted late, which moves with the host;
``fixed`` is a gap that the host did not cause. With nothing changed the model gives back the measured end to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EARLY, Times, Union, newly_covered, union
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Idle, Judged, Ledger
from moeprof.analysis.overlap import exposures
from moeprof.findings.host_time import Host, HostTime
from moeprof.findings.steady_state import LEAST_PASSES, Focus, focus
from moeprof.trace import Device, Trace

TINY_BYTES = 64 * 1024  # a copy below it costs its overhead, not its bytes: 64 KiB take 1.2 us at 55 GB/s
CROWD = 4  # tiny copies one after another from which their number is the cause, whether the host waits for each or not
LEAST_STARVED = 10  # gaps: fewer are no pattern
UNLIKE_KERNELS = 4  # kinds of kernels from which a repeated chain is a step worth a graph, not one kernel in a loop
ALIKE = 0.95  # of the operations must be the same one pass later
RECURS = 3  # a gap counts as often repeated when at least this many of its kind are half as long or longer
NOT_OVERHEAD = "Command Buffer Full"  # CUPTI lists it as overhead, but it is the program that waits
LATENCY_NS = 3_000  # from a launch call's return to the kernel's start on an idle GPU, where the trace shows none


@dataclass(frozen=True)
class Scene:
    """One device, one focus. Arrays have one entry an operation that starts inside the focus, in order of start."""

    trace: Trace
    view: DeviceView
    focus: Focus

    @cached_property
    def index(self) -> Times:
        """Rows of the operations in ``view``."""
        starts, pieces = self.view.starts, self.focus.pieces
        return np.flatnonzero(pieces.contains(starts)) if len(pieces.starts) else np.empty(0, np.int64)

    @cached_property
    def starts(self) -> Times:
        """Start of each operation."""
        return self.view.starts[self.index]

    @cached_property
    def work(self) -> Times:
        """Device time of each operation that no earlier one covers."""
        left, right = newly_covered(self.starts, self.view.ends[self.index])
        return np.maximum(right - left, 0)

    @cached_property
    def _reach(self) -> Times:
        """The latest end of the operations before each; very early for the first."""
        return np.concatenate([[EARLY], np.maximum.accumulate(self.view.ends[self.index])[:-1]])

    @cached_property
    def before(self) -> Times:
        """When the device last ran dry before each operation: the latest end of those before it, or the piece's start."""
        pieces = self.focus.pieces
        opened = pieces.starts[np.searchsorted(pieces.starts, self.starts, side="right") - 1]
        return np.maximum(self._reach, opened)

    @cached_property
    def gaps(self) -> Times:
        """Idle time that ends with each operation."""
        return np.maximum(self.starts - self.before, 0)

    @cached_property
    def call(self) -> Times:
        """Row of each operation's launch call, or -1."""
        return self.view.call[self.index]

    @cached_property
    def late(self) -> np.ndarray:
        """Operations that the host had not submitted when the device ran dry."""
        return (self.gaps > 0) & (self.call >= 0) & (self.view.call_ends[self.index] > self.before)

    @cached_property
    def once(self) -> Times:
        """The part of each gap that does not recur: beyond twice the third longest gap before an operation of its kind."""
        kind = self.view.signatures[self.index]
        order = np.lexsort((-self.gaps, kind))
        first = np.concatenate([[True], kind[order][1:] != kind[order][:-1]]) if len(order) else np.empty(0, bool)
        begins = np.flatnonzero(first)
        sizes = np.diff(np.append(begins, len(order)))
        third = np.where(sizes >= RECURS, self.gaps[order][np.minimum(begins + RECURS - 1, len(order) - 1)], 0)
        cap = np.empty(len(order), dtype=np.int64)
        cap[order] = np.repeat(2 * third, sizes)
        return np.maximum(self.gaps - cap, 0) if self.focus.repeats else np.zeros(len(order), dtype=np.int64)

    @cached_property
    def span(self) -> int:
        """Length of the focus without the gaps that do not recur, in ns; at least 1."""
        return max(self.focus.pieces.total_ns - int(self.once.sum()), 1)

    @cached_property
    def idle_ns(self) -> int:
        """Idle time of the focus."""
        return int(self.gaps.sum())

    @cached_property
    def judged(self) -> Judged:
        """How much of the device's time is judged, and who owns that part."""
        view, pieces = self.view, list(zip(self.focus.pieces.starts, self.focus.pieces.ends, strict=True))
        ledgers = [ledger(view, int(start), int(end)) for start, end in pieces]
        idles = [idle(view, int(start), int(end)) for start, end in pieces]
        return Judged(
            view.index, self.focus.label, self.focus.repeats, self.passes, self.focus.start_ns, self.focus.end_ns,
            self.focus.pieces.total_ns, int(view.ends.max()) - int(view.starts[0]), len(self.index), len(view.ops),
            Ledger(*(sum(getattr(x, f.name) for x in ledgers) for f in fields(Ledger))),
            Idle(*(sum(getattr(x, f.name) for x in idles) for f in fields(Idle))),
        )  # fmt: skip

    @cached_property
    def passes(self) -> int:
        """How often the focus repeats: by its ranges, else by the period of its operations; 0 where neither is known."""
        if self.focus.spans or self.chain is None:
            return len(self.focus.spans)
        return round(int((~self.view.in_graph[self.index]).sum()) / self.chain[0])

    @cached_property
    def exposed(self) -> pd.DataFrame:
        """The copies of the focus (``overlap.exposures``)."""
        return exposures(self.view, self.focus.start_ns, self.focus.end_ns)

    @cached_property
    def device(self) -> Device | None:
        """What the profiler recorded of the GPU."""
        return next((d for d in self.trace.devices if d.index == self.view.index), None)

    def owned(self, owner: Union) -> int:
        """How much of a union lies in the focus, in ns."""
        pieces = self.focus.pieces
        return int(owner.covered(pieces.starts, pieces.ends).sum())

    @property
    def compute_ns(self) -> int:
        """|K| of the focus."""
        return self.owned(self.view.owners[0])

    @cached_property
    def overhead(self) -> Union:
        """When the profiler itself was at work, on any thread."""
        rows = self.trace.overheads
        rows = rows[~rows["name"].astype(str).str.contains(NOT_OVERHEAD, regex=False)]
        return union(rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy())

    @cached_property
    def host(self) -> Host:
        """What the launching threads did."""
        return Host(self.view, self.index, self.focus.start_ns, self.focus.end_ns, self.overhead)

    @cached_property
    def tiny(self) -> np.ndarray:
        """Copies below ``TINY_BYTES`` whose cost is their number: the host does not wait for them, or they follow one another."""
        size = self.view.ops["bytes"].to_numpy()[self.index]
        small = self.view.is_copy[self.index] & (size >= 0) & (size < TINY_BYTES) & ~self.view.in_graph[self.index]
        run = np.cumsum(~small)  # constant over copies that follow one another
        crowd = np.bincount(run[small], minlength=int(run[-1]) + 1 if len(run) else 1)[run] >= CROWD
        return small & (crowd | ~self.view.host_waited[self.index])

    @cached_property
    def launched(self) -> np.ndarray:
        """Kernels outside graphs that only their launch delays: no wait comes before it, and it loads no code."""
        kernels = self.view.is_kernel[self.index] & ~self.view.in_graph[self.index]
        return kernels & (self.host.last_wait == EARLY) & ~self.host.loads_code

    @cached_property
    def launch_gain(self) -> int:
        """What free launches of the kernels outside graphs would gain, in ns; 0 where too few gaps speak for it."""
        kernels = self.launched
        starved = kernels & self.late
        return self.gain(self.host.in_launches(kernels)) if starved.sum() >= LEAST_STARVED else 0

    @cached_property
    def chain(self) -> tuple[int, int] | None:
        """(launches, kinds of kernels) of a pass, where passes repeat exactly and hold several kinds; else None."""
        kinds = self.view.signatures[self.index][~self.view.in_graph[self.index]]
        period = _period(kinds)
        if period is None or (kinds[period:] == kinds[:-period]).mean() < ALIKE:
            return None
        unlike = len(np.unique(kinds[:period]))
        return (period, unlike) if unlike >= UNLIKE_KERNELS else None

    def gain(self, host: HostTime | None = None, device: Times | None = None, waits: bool = True) -> int:
        """What the focus gains, in ns, if each operation's host were ``host`` ns earlier and its work ``device`` ns less.

        ``waits``: the host still waits where it did, so that it is never further ahead than since its last wait.
        """
        nothing = np.zeros(len(self.index), dtype=np.int64)
        by_start, by_wait = (nothing, nothing) if host is None else host
        blocks = self._blocks if waits else self._blocks[:1]
        begun = np.concatenate([[0], by_wait[blocks[1:]]])
        ahead = by_start - np.repeat(begun, np.diff(np.append(blocks, len(self.index))))
        changed = self._ends(blocks, ahead, nothing if device is None else device)
        return int((self._ends(blocks, nothing, nothing) - changed).sum())

    @cached_property
    def _blocks(self) -> Times:
        """Where the host and the dry device began anew together: the first operation, and each after such a wait."""
        fresh = self.late & (self.host.last_wait >= self.before)
        return np.union1d([0], np.flatnonzero(fresh)).astype(np.int64)

    def _ends(self, blocks: Times, ahead: Times, device: Times) -> Times:
        """The end of each block of operations, were it to begin when it did, with hosts ``ahead`` of their time."""
        if not len(self.index):
            return np.zeros(1, dtype=np.int64)
        fixed = np.where(self.late, self.once, self.gaps) + self._seams
        ready = np.where(self.late, self.starts, self._submitted) - ahead
        work = self.work - device
        reach = np.cumsum(fixed + work)
        begun = np.concatenate([[0], reach])[blocks]
        last = np.append(blocks[1:], len(self.index)) - 1
        opened = np.maximum(self.before[blocks] - self._seams[blocks], self.focus.start_ns)
        latest = np.maximum.reduceat(ready + work - reach, blocks) + reach[last]
        return np.maximum(latest, opened + reach[last] - begun)

    @cached_property
    def _seams(self) -> Times:
        """The time between the pieces of the focus, which passes whatever the host does."""
        pieces = self.focus.pieces
        piece = np.searchsorted(pieces.starts, self.starts, side="right") - 1
        new = np.concatenate([[False], piece[1:] != piece[:-1]])
        return np.where(new, np.maximum(self.before - self._reach, 0), 0)

    @cached_property
    def _submitted(self) -> Times:
        """The earliest start of the others: their launch call's return and a latency; very early where it is not known."""
        returned = self.view.call_ends[self.index]
        latency = (self.starts - returned)[self.late]
        usual = int(np.median(np.maximum(latency, 0))) if len(latency) else LATENCY_NS
        return np.minimum(np.where(returned > EARLY, returned, self.focus.start_ns - usual) + usual, self.starts)


def scenes_of(trace: Trace, prepared: Sequence[DeviceView]) -> tuple[Scene, ...]:
    """A scene for each device with work: the part that repeats."""
    return tuple(Scene(trace, view, focus(trace, view)) for view in prepared if len(view.ops))


def _period(kinds: Times) -> int | None:
    """The distance at which the sequence repeats: the commonest distance between operations of its rarest frequent kind."""
    if len(kinds) < 2 * LEAST_PASSES:
        return None
    count = np.bincount(kinds)
    frequent = count[count >= LEAST_PASSES]
    if not len(frequent):
        return None
    rare = np.flatnonzero(count == frequent.min())[0]
    return int(np.bincount(np.diff(np.flatnonzero(kinds == rare))).argmax())
