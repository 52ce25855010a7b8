"""What a worker answers: the part of one rank (``Local``), and the answer of all of them as one (``Server``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from moeprof.errors import WorkloadError
from moeprof.storage.files import of_rank
from moeprof.worker import built_variant, messages, reduce
from moeprof.worker.built_variant import Session
from moeprof.worker.clock_offset import Anchor
from moeprof.worker.messages import (
    Build,
    Built,
    Ceilings,
    Done,
    Hello,
    Measure,
    Measured,
    MeasuredCeilings,
    Prepare,
    Prepared,
    Prove,
    Proven,
    R,
    RankProcess,
    Reply,
    Request,
    Resolve,
    Resolved,
    Round,
    Timed,
    Times,
    Warm,
)
from moeprof.worker.spec import Params
from moeprof.worker.start_barrier import StartBarrier
from moeprof.workload.model import Machine, Variant, Workload

# of several ranks: what rank 0 starts reaches the other processes of the host later; nsys missed their first iteration without
SETTLE_S = 1.0
ANCHORS = 8  # at either end of a traced run


class Local:
    """One rank's own part of every request; ``barrier`` returns once all ranks are there."""

    def __init__(
        self, workload: Workload, variant: Variant, device: str, rank: int = 0, ranks: int = 1, index: int = 0
    ) -> None:
        self.workload, self.variant, self.device, self.rank, self.index = workload, variant, device, rank, index
        self.facts: Machine = built_variant.machine(device, ranks)
        self.barrier: Callable[[], None] = lambda: None
        self.host, self.leads = 0, index == 0  # the first of its host starts and stops nsys there
        self.own: Path | None = None  # where it writes its trace, where that is not beside rank 0's
        self.anchored = False  # its trace is to tell where its clock stands: there are several hosts
        self.session: Session | None = None

    def about(self) -> RankProcess:
        """Which process on which device this rank is."""
        index = self.index if self.device == "cuda" else None
        return RankProcess(self.rank, os.getpid(), index, built_variant.gpu_uuid(self.device, self.index), self.host)

    def answer(self, request: Request[R]) -> R:
        """The reply to one request.

        Raises:
            WorkloadError: a single rank does not answer this request, or nothing is built yet.
        """
        return messages.reply_to(request, self._answer(request))

    def _answer(self, request: object) -> Reply:
        match request:
            case Resolve(params):
                return Resolved(self.workload.resolve(params, self.facts))
            case Ceilings(params):
                return MeasuredCeilings(self.workload.ceilings(params, self.device))
            case Build(params):
                return self._build(params)
            case Prove():
                session = self._built()
                return Proven(session.prove(), session.step.facts())
            case Times(count):
                session = self._built()
                self.barrier()
                return Timed(tuple(session.times(count)))
            case Warm():
                self._built().warm_up()
                return Done()
            case Measure():
                return self._measure(request)
        raise WorkloadError(f"a rank does not answer {type(request).__name__}")

    def _build(self, params: Params) -> Built:
        self.session = Session(self.workload, self.variant, self.device, params)
        return Built(self.session.step.flops, self.session.step.bytes_moved)

    def _measure(self, request: Measure) -> Measured:
        """Under the profiler, all ranks between two barriers: what starts it outside of them starts before any rank's work."""
        from moeprof.worker import profiler

        session = self._built()
        with profiler.recorder(request.profiler, self._out(request.out), self.device, self.leads):
            time.sleep(SETTLE_S if self.facts.ranks > 1 else 0)
            anchors = self._anchors(0)
            self.barrier()
            session.measured(request.iterations)
            self.barrier()
            anchors += self._anchors(ANCHORS)
            if request.gate is not None and self.device == "cuda" and self.rank == 0:
                StartBarrier.at(request.gate).leave()
        about = self.about()
        return Measured(about.rank, about.pid, about.device_index, about.gpu_uuid, about.host, tuple(anchors))

    def _out(self, given: str | None) -> str | None:
        """Where this rank's own trace goes."""
        base = self.own or (None if given is None else Path(given))
        return None if base is None else str(of_rank(base, self.rank))

    def _anchors(self, first: int) -> list[Anchor]:
        from moeprof.worker import profiler

        return profiler.anchors(range(first, first + ANCHORS)) if self.anchored else []

    def _built(self) -> Session:
        if self.session is None:
            raise WorkloadError("nothing is built yet", "send a build request first")
        return self.session


class Crew(Protocol):
    """All ranks that run one variant."""

    @property
    def local(self) -> Local:
        """The part of this process, rank 0."""

    def start(self) -> tuple[RankProcess, ...]:
        """All ranks are up: the process of each; empty without ranks."""

    def ask(self, request: Request[R]) -> list[R]:
        """Every rank's reply, by rank."""

    def restart_clock(self) -> None:
        """The time limit counts from now."""

    def close(self) -> None:
        """All ranks end."""


class Alone:
    """A workload without ranks: this process is all of it."""

    def __init__(self, local: Local) -> None:
        self.local = local

    def start(self) -> tuple[RankProcess, ...]:
        """Nothing to report of a single process."""
        return ()

    def ask(self, request: Request[R]) -> list[R]:
        """The only reply."""
        return [self.local.answer(request)]

    def restart_clock(self) -> None:
        """Nothing: whoever started this process watches its time."""

    def close(self) -> None:
        """Nothing."""


class Server:
    """Answers the capture's requests for all ranks at once."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def hello(self) -> Hello:
        """The worker's first line; all ranks are up by then, unless the variant cannot run here."""
        local = self.crew.local
        skip = local.variant.needs(local.facts)
        return Hello(
            local.facts, built_variant.versions(), built_variant.gpu_uuid(local.device), skip,
            () if skip else self.crew.start(),
        )  # fmt: skip

    def answer(self, request: Request[R]) -> R:
        """The reply to one request.

        Raises:
            WorkloadError: a worker does not answer this request.
        """
        return messages.reply_to(request, self._answer(request))

    def _answer(self, request: object) -> Reply:
        match request:
            case Prepare(params):
                return self._prepare(params)
            case Build():
                return reduce.built(self.crew.ask(request))
            case Prove():
                return reduce.proven(self.crew.ask(request))
            case Round(seconds):
                return self._round(seconds)
        raise WorkloadError(f"a worker does not answer {type(request).__name__}")

    def _prepare(self, params: Params) -> Prepared:
        """Every rank resolves, as it may take all of them to calibrate; what rank 0 found counts."""
        resolved = self.crew.ask(Resolve(params))[0].params
        return Prepared(resolved, reduce.ceilings(self.crew.ask(Ceilings(resolved))))

    def _round(self, seconds: float) -> Timed:
        """Times of the slowest rank, and each rank's median in the last call of ``times``, which is the timed one."""
        last: list[tuple[int, ...]] = []  # by rank, without the first iteration

        def times(count: int) -> list[int]:
            by_rank = [reply.times_ns for reply in self.crew.ask(Times(count))]
            last[:] = [times_ns[1:] for times_ns in by_rank]
            return reduce.slowest(by_rank)

        slowest_ns = built_variant.timed(times, seconds)
        return Timed(tuple(slowest_ns), tuple(reduce.medians(last)) if len(last) > 1 else ())
