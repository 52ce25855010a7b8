"""Rounds of clean timing: every variant and the baseline's twin once per round, until the verdicts are clear or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

from moeprof.capture import disturbance
from moeprof.capture.child_processes import WorkerProcess
from moeprof.capture.disturbance import Judged
from moeprof.capture.progress import Progress
from moeprof.capture.request import Request
from moeprof.errors import MoeprofError
from moeprof.machine import load, nvml
from moeprof.notes import note
from moeprof.stats import verdict as verdicts
from moeprof.stats.round_order import TWIN, order
from moeprof.stats.verdict import LOOKS
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Gpu, Round, VariantRecord
from moeprof.worker import messages

ROUND_SECONDS = 0.25  # of one variant in one round
BUDGET_S = 40  # with the rest of a capture under two minutes (docs/results); quiet machines need a third
ENOUGH = 30  # rounds that a budget should hold: they find 3 % at 1 % noise (docs/results)
LEAST_SECONDS, AROUND_SECONDS = 0.1, 0.04  # of a phase: timed, however many variants there are; untimed
REPEATS = 2  # with --rounds N at most that many times N rounds run, where some are disturbed


@dataclass
class Workers:
    """The processes that are timed, by variant. ``twin`` runs the baseline a second time; None: the baseline's own process
    does. ``uuids`` name the GPUs that they use, of a workload with ranks each rank's on this host; None: the first one's."""

    servers: dict[str, WorkerProcess]
    twin: WorkerProcess | None
    uuids: tuple[str | None, ...]

    @property
    def pids(self) -> list[int]:
        """The numbers of all processes, every rank's."""
        servers = [s for s in (*self.servers.values(), self.twin) if s is not None]
        return list(dict.fromkeys((*(s.process.pid for s in servers), *(pid for s in servers for pid in s.rank_pids))))


@dataclass
class Timing:
    """The rounds of one capture; ``failed`` is told of a variant whose process failed, and takes it off the workers."""

    request: Request
    store: Store
    progress: Progress
    workers: Workers
    failed: Callable[[str, MoeprofError], None]
    has_twin: bool = field(init=False)
    looked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.has_twin = self.store.manifest.baseline in self.workers.servers

    def run(self) -> None:
        """Rounds until the request's number of them is undisturbed, or the verdicts are clear, or the budget is spent."""
        self.store.update(looks=1 if self.request.rounds else len(LOOKS))
        self.progress.phase("time", self._expected() * (len(self.workers.servers) + self.has_twin))
        started = time.monotonic()
        with nvml.held():
            for index in count():
                self._turn(index)
                spent = time.monotonic() - started
                if not self.workers.servers or self._over(self._judge(), index + 1, spent):
                    break
        self.store.note(*disturbance.notes(self._judge(), index + 1))

    def seconds(self) -> float:
        """How long one phase is timed: shorter where the budget would hold too few rounds of so many variants."""
        if self.request.rounds:
            return ROUND_SECONDS
        turns = ENOUGH * (len(self.workers.servers) + self.has_twin)
        share = (self.request.budget_s or BUDGET_S) / max(turns, 1) - AROUND_SECONDS
        return min(max(share, LEAST_SECONDS), ROUND_SECONDS)

    def _expected(self) -> int:
        return self.request.rounds or LOOKS[0]

    def _over(self, judged: Judged, done: int, spent_s: float) -> bool:
        """Whether this was the last round. Verdicts are looked at after so many rounds as ``LOOKS`` says and at no other
        time: each look is a chance of a false alarm, and the verdict's interval is wide enough for that many."""
        if self.request.rounds:
            return judged.used >= self.request.rounds or done >= REPEATS * self.request.rounds
        if judged.used >= LOOKS[-1] or spent_s * (done + 1) / done > (self.request.budget_s or BUDGET_S):
            return True
        if judged.used < LOOKS[self.looked]:
            return False
        self.looked = sum(look <= judged.used for look in LOOKS)
        return self._clear()

    def _clear(self) -> bool:
        """Whether every variant's verdict is FASTER, SLOWER or SAME."""
        records = {v.name: v for v in self.store.manifest.variants if v.name in self.workers.servers}
        baseline = records.pop(self.store.manifest.baseline or "", None)
        if baseline is None:
            return True
        judged = [verdicts.verdict(baseline, record, len(LOOKS)) for record in records.values()]
        return all(verdict is not None and verdict.word != "UNCLEAR" for verdict in judged)

    def _turn(self, index: int) -> None:
        """One round: every variant and the twin once."""
        done: dict[str, Round] = {}
        for position, name in enumerate(self._order(index)):
            timed = self.phase(name, index, position)
            if timed is not None:
                done[name] = timed
                self.progress.step(f"round {index + 1}: {name}")
        baseline = self.store.manifest.baseline or ""
        self._change(
            lambda record: replace(
                record,
                rounds=(*record.rounds, *_one(done, record.name)),
                twin=(*record.twin, *_one(done, TWIN.format(record.name))) if record.name == baseline else (),
            )
        )

    def _order(self, index: int) -> list[str]:
        names = [*self.workers.servers, *([TWIN.format(self.store.manifest.baseline)] if self.has_twin else [])]
        return order(names, self.store.manifest.seed, index)

    def phase(self, name: str, index: int, position: int) -> Round | None:
        """One variant's times in one round with the machine's state around them; None where its process failed."""
        server = self._server(name)
        if server is None:
            return None
        with self._watched() as others_cores:
            try:
                timed = server.ask(messages.Round(self.seconds()))
            except MoeprofError as error:
                self.lost(name, error)
                return None
        gpu, *rank_gpus = self._gpus()
        return Round(
            index, position, timed.times_ns, gpu, others_cores(), ranks_ns=timed.ranks_ns,
            rank_gpus=tuple(state for state in rank_gpus if state is not None),
        )  # fmt: skip

    def _gpus(self) -> list[Gpu | None]:
        """The state of each GPU in use."""
        if self.store.manifest.device != "cuda":
            return [None]
        pids = self.workers.pids
        return [nvml.gpu(uuid, pids) for uuid in self.workers.uuids]

    def _server(self, name: str) -> WorkerProcess | None:
        """The process of a variant or of the twin; None where it was lost since the round began."""
        servers = self.workers.servers
        if name in servers or not self.has_twin:
            return servers.get(name)
        return self.workers.twin or servers.get(self.store.manifest.baseline or "")

    def lost(self, name: str, error: MoeprofError) -> None:
        """A process failed. Without the baseline there is no twin; without the twin the A/A noise comes from halves of the rounds."""
        if name not in self.workers.servers and self.workers.twin is not None:
            self.store.note(note("no-twin", why=error.message))
            self.has_twin = False
            return
        baseline = self.store.manifest.baseline
        self.failed(name if name in self.workers.servers else str(baseline), error)
        self.has_twin = self.has_twin and baseline in self.workers.servers

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], float | None]]:
        """What other processes did on the CPU inside the block, once it is over."""
        readings = [load.read(self.workers.pids)]
        yield lambda: load.others_cores(readings[0], readings[-1]) if len(readings) > 1 else None
        readings.append(load.read(self.workers.pids))

    def _judge(self) -> Judged:
        """All phases judged anew, and their marks stored."""
        manifest = self.store.manifest
        phases = {v.name: v.rounds for v in manifest.variants if v.name in self.workers.servers}
        phases |= {TWIN.format(v.name): v.twin for v in manifest.variants if v.twin and v.name in self.workers.servers}
        judged = disturbance.judge(phases, manifest.environment, manifest.device)
        self._change(
            lambda record: replace(
                record,
                rounds=judged.phases.get(record.name, record.rounds),
                twin=judged.phases.get(TWIN.format(record.name), record.twin),
            )
        )
        return judged

    def _change(self, how: Callable[[VariantRecord], VariantRecord]) -> None:
        """Change every record at once: the manifest, which grows with every round, is written once."""
        changed = tuple(how(record) for record in self.store.manifest.variants)
        if changed != self.store.manifest.variants:
            self.store.update(variants=changed)


def _one(done: dict[str, Round], name: str) -> tuple[Round, ...]:
    return (done[name],) if name in done else ()
