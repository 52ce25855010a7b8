"""What a worker answers: the part of one rank (``Local``), and the answer of all of them as one (``Server``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from moeprof.errors import WorkloadError
from moeprof.storage.files import of_rank
from moeprof.storage.json import encode
from moeprof.worker import built_variant, reduce
from moeprof.worker.built_variant import Session
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
        self.leads = rank == 0  # the first of its host, which starts and stops nsys there
        self.own: Path | None = None  # where it writes its trace, where that is not beside rank 0's
        self.anchored = False  # its trace is to tell where its clock stands: there are several hosts
        self.session: Session | None = None

    def about(self) -> dict[str, Any]:
        """Which process on which device this rank is."""
        on_gpu = self.device == "cuda"
        uuid = built_variant.gpu_uuid(self.device, self.index)
        return {
            "rank": self.rank,
            "pid": os.getpid(),
            "device_index": self.index if on_gpu else None,
            "gpu_uuid": uuid,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        actions = {
            "resolve": self._resolve, "ceilings": self._ceilings, "build": self._build, "prove": self._prove,
            "times": self._times, "warm": self._warm, "measure": self._measure,
        }  # fmt: skip
        return actions[request["do"]](request)

    def _resolve(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"params": self.workload.resolve(request["params"], self.facts)}

    def _ceilings(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ceilings": self.workload.ceilings(request["params"], self.device)}

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        self.session = Session(self.workload, self.variant, self.device, request["params"])
        return {"flops": self.session.step.flops, "bytes_moved": self.session.step.bytes_moved}

    def _prove(self, request: dict[str, Any]) -> dict[str, Any]:
        session = self._built()
        return {"proof": encode(session.prove()), "facts": session.step.facts()}

    def _times(self, request: dict[str, Any]) -> dict[str, Any]:
        session = self._built()
        self.barrier()
        return {"times_ns": session.times(request["count"])}

    def _warm(self, request: dict[str, Any]) -> dict[str, Any]:
        self._built().warm_up()
        return {}

    def _measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Under the profiler, all ranks between two barriers: what starts it outside of them starts before any rank's work. The
        file ``over`` appears once the device has nothing more to do; the profiler may still have its report to write."""
        from moeprof.worker import profiler

        session = self._built()
        with profiler.recorder(request["profiler"], self._out(request["out"]), self.device, self.leads):
            time.sleep(SETTLE_S if self.facts.ranks > 1 else 0)
            anchors = self._anchors(0)
            self.barrier()
            session.measured(request["iterations"])
            self.barrier()
            anchors += self._anchors(ANCHORS)
            if request.get("over") and self.device == "cuda" and self.rank == 0:
                Path(request["over"]).touch()
        return self.about() | ({"anchors": anchors} if anchors else {})

    def _out(self, given: str | None) -> str | None:
        """Where this rank's own trace goes."""
        base = self.own or (None if given is None else Path(given))
        return None if base is None else str(of_rank(base, self.rank))

    def _anchors(self, first: int) -> list[list[int]]:
        from moeprof.worker import profiler

        return profiler.anchors(range(first, first + ANCHORS)) if self.anchored else []

    def _built(self) -> Session:
        if self.session is None:
            raise WorkloadError("nothing is built yet", 'send {"do": "build"} first')
        return self.session


class Crew(Protocol):
    """All ranks that run one variant."""

    @property
    def local(self) -> Local:
        """The part of this process, rank 0."""

    def start(self) -> list[dict[str, Any]]:
        """All ranks are up; what each says of itself (``Local.about``)."""

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every rank's reply, by rank."""

    def restart_clock(self) -> None:
        """The time limit counts from now."""

    def close(self) -> None:
        """All ranks end."""


class Alone:
    """A workload without ranks: this process is all of it."""

    def __init__(self, local: Local) -> None:
        self.local = local

    def start(self) -> list[dict[str, Any]]:
        """Nothing is to be said of a single process."""
        return []

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The one reply."""
        return [self.local.answer(request)]

    def restart_clock(self) -> None:
        """Nothing: whoever started this process watches its time."""

    def close(self) -> None:
        """Nothing."""


class Server:
    """Answers requests, one JSON object a line, until ``quit`` or the end of the input.

    {"do": "prepare", "params": {}} -> {"params": resolved, "ceilings": {}}
    {"do": "build", "params": {}}   -> {"flops": int, "bytes_moved": int}
    {"do": "prove"}                 -> {"proof": {}, "facts": {}}, of several ranks also "ranks": [each rank's]
    {"do": "round", "seconds": s}   -> {"times_ns": []}, of several ranks also "ranks_ns": [each rank's median]
    """

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def hello(self) -> dict[str, Any]:
        """The first line: what machine this is, and why the variant cannot run here, if so; of a workload with ranks also
        "ranks": [what each says of itself], once all are up."""
        local = self.crew.local
        skip = local.variant.needs(local.facts)
        facts = {
            "machine": encode(local.facts),
            "versions": built_variant.versions(),
            "gpu_uuid": built_variant.gpu_uuid(local.device),
        }
        return {"ready": True, **facts, "skip": skip, "ranks": [] if skip else self.crew.start()}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        actions = {"prepare": self._prepare, "build": self._build, "prove": self._prove, "round": self._round}
        action = actions.get(request.get("do", ""))
        if action is None:
            raise WorkloadError(f"unknown request {request.get('do')!r}", f"known: {', '.join(actions)}")
        return action(request)

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Every rank resolves, as it may take all of them to calibrate; what rank 0 found counts."""
        params = self.crew.ask({"do": "resolve", "params": request["params"]})[0]["params"]
        return {
            "params": params,
            "ceilings": reduce.ceilings(self.crew.ask({"do": "ceilings", "params": params})),
        }

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        return reduce.built(self.crew.ask(request))

    def _prove(self, request: dict[str, Any]) -> dict[str, Any]:
        return reduce.proven(self.crew.ask(request))

    def _round(self, request: dict[str, Any]) -> dict[str, Any]:
        kept: list[list[int]] = []  # of the last call, by rank, without the first iteration

        def times(count: int) -> list[int]:
            each = [reply["times_ns"] for reply in self.crew.ask({"do": "times", "count": count})]
            kept[:] = [own[1:] for own in each]
            return reduce.slowest(each)

        found = built_variant.timed(times, float(request["seconds"]))
        return {"times_ns": found} | ({"ranks_ns": reduce.medians(kept)} if len(kept) > 1 else {})
