"""Clean timing: every variant in a process of its own, proven first, then timed in interleaved rounds with no profiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from moeprof.capture import ranks
from moeprof.capture.child_processes import WorkerProcess, close_all
from moeprof.capture.commands import patience_s, serve
from moeprof.capture.hosts import Decision, Hosts
from moeprof.capture.plan import Plan
from moeprof.capture.progress import Progress
from moeprof.capture.rounds import Timing, Workers
from moeprof.errors import MoeprofError, ToolError, WorkloadError
from moeprof.machine import load, nvml
from moeprof.notes import note
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Gpu
from moeprof.worker.messages import Build, Built, Prepare, Prove, Versions
from moeprof.worker.spec import Params, Target

ROOM_SHARE = 0.8  # of the memory that is left: what a twin of the baseline in a process of its own may take


@dataclass(frozen=True)
class CleanProcess:
    """One process of clean timing: of a variant, or the baseline's twin; ``kind`` is in the name of its log."""

    name: str
    kind: Literal["clean", "twin"]
    target: Target


def clean_processes(plan: Plan) -> list[CleanProcess]:
    """One process per variant, and a second one of the baseline."""
    processes = [CleanProcess(name, "clean", target) for name, target in plan.targets.items()]
    baseline = None if plan.workload is None else plan.targets.get(plan.workload.baseline)
    twin = [] if baseline is None else [CleanProcess(f"{baseline.variant} (twin)", "twin", baseline)]
    return processes + twin


@dataclass
class Clean:
    """The clean phase of one capture; ``problems`` collects what failed, variant by variant."""

    plan: Plan
    store: Store
    progress: Progress
    problems: list[MoeprofError]
    hosts: Hosts | None = None  # all of them, where there are several
    begin: Callable[[list[str]], None] = lambda names: None  # told of the variants that run here, before they are built
    settle: Callable[[], None] = lambda: None  # returns once what was begun is quiet, before anything is timed
    process_bytes: int = 0  # GPU memory that one variant's process takes, once all are built; 0: not known
    uuid: str | None = None  # of the GPU that the workers use
    rank_uuids: tuple[str, ...] = ()  # of those of ranks 1 and up on this host
    twin: WorkerProcess | None = None

    def run(self) -> list[Target]:
        """Prove and time all variants; those that may be profiled, with calibrated parameters. On a further host ranks answer those
        that do."""
        targets, params = self.plan.targets, self.plan.params
        servers: dict[str, WorkerProcess] = {}
        try:
            self.progress.phase("prove", len(targets))
            for process in clean_processes(self.plan):  # all start before any is waited for: imports take seconds
                worker = self._start(process)
                if process.kind == "twin":
                    self.twin = worker
                else:
                    servers[process.name] = worker
            if not self.plan.host:
                params = self._proven_and_timed(servers)
            names = (
                tuple(servers) if self.hosts is None else self.hosts.decide(Decision(variants=tuple(servers))).variants
            )
            return [replace(target, params=params) for name, target in targets.items() if name in names]
        finally:
            close_all([*servers.values(), *([self.twin] if self.twin is not None else [])])

    def _proven_and_timed(self, servers: dict[str, WorkerProcess]) -> Params:
        """Those variants remain; the calibrated parameters."""
        self._greet(servers)
        params = self._prepare(servers)
        self.begin(list(servers))
        self._prove(servers, params)
        self.process_bytes = self._memory() // max(len(servers), 1)
        self._build_twin(servers, params)
        self.settle()
        self._time(servers)
        return params

    def _start(self, process: CleanProcess) -> WorkerProcess:
        log = self.store.log(process.target.variant, process.kind)
        server = WorkerProcess(process.name, serve(self.plan, process.target, log), log, patience_s(self.plan))
        if self.hosts:
            self.hosts.started(server.process, log)
        return server

    def _fail(self, servers: dict[str, WorkerProcess], name: str, error: MoeprofError) -> None:
        servers.pop(name).close()
        self.problems.append(error)
        self.store.record(name, status="failed", reason=error.message)
        ranks.failed(self.store, name, error)

    def _greet(self, servers: dict[str, WorkerProcess]) -> None:
        """Take each worker's first line: versions, and why a variant cannot run here."""
        for name in list(servers):
            try:
                hello = servers[name].hello()
            except MoeprofError as error:
                self._fail(servers, name, error)
                continue
            if self.plan.device == "cuda" and not hello.machine.cuda:
                raise ToolError("torch sees no GPU here", "install a CUDA build of torch, or give --device cpu")
            self._versions(hello.versions)
            self.uuid = self.uuid or hello.gpu_uuid
            ranks.started(self.store, name, hello.ranks)
            self.rank_uuids = self.rank_uuids or ranks.other_gpus(hello.ranks)
            if hello.skip:
                servers.pop(name).close()
                self.store.record(name, status="skipped", reason=hello.skip)
                self.store.note(note("variant-skipped", variant=name, why=hello.skip))
                self.progress.step(f"{name} SKIPPED: {hello.skip}")

    def _versions(self, versions: Versions) -> None:
        environment = self.store.manifest.environment
        if environment.torch is None:
            self.store.update(environment=replace(environment, torch=versions.torch, cuda=versions.cuda))

    def _prepare(self, servers: dict[str, WorkerProcess]) -> Params:
        """Concrete parameters and the ceilings, measured once, by the baseline's worker if it is there."""
        baseline = self.store.manifest.baseline
        names = sorted(servers, key=lambda name: name != baseline)
        if not names:
            return self.store.manifest.params
        prepared = servers[names[0]].ask(Prepare(self.store.manifest.params))
        self.store.update(params=prepared.params, ceilings=prepared.ceilings)
        return prepared.params

    def _build(self, servers: dict[str, WorkerProcess], params: Params) -> dict[str, Built]:
        """What each worker built. They build side by side, which compiles for some; all are heard before the
        first proof, so that a kernel that is chosen by timing is timed beside builds alone."""
        for server in servers.values():
            server.tell(Build(params))
        built = {}
        for name in list(servers):
            try:
                built[name] = servers[name].hear(Build(params))
            except MoeprofError as error:
                self._fail(servers, name, error)
        return built

    def _prove(self, servers: dict[str, WorkerProcess], params: Params) -> None:
        """Build all, then prove one at a time."""
        for name, built in self._build(servers, params).items():
            try:
                proven = servers[name].ask(Prove())
            except MoeprofError as error:
                self._fail(servers, name, error)
                continue
            proof = proven.proof
            self.store.record(name, proof=proof, flops=built.flops, bytes_moved=built.bytes_moved, facts=proven.facts)
            ranks.proven(self.store, name, proven.ranks)
            if proof.ok:
                self.progress.step(f"{name} proven: {proof.checked}")
            else:
                self._fail(servers, name, WorkloadError(f"{name} is wrong: {proof.reason}", "it is not timed"))

    def _build_twin(self, servers: dict[str, WorkerProcess], params: Params) -> None:
        """The baseline once more in a process of its own, where memory allows: two processes of one program differ (where
        memory lies, what was chosen by timing), and only a second one shows by how much. Else it shares the baseline's."""
        baseline, twin, why = self.store.manifest.baseline, self.twin, ""
        if twin is None or baseline not in servers:
            why = "the baseline does not run here"
        elif not self._room(servers[baseline]):
            why = "memory would not hold another process"
        else:
            try:
                twin.hello()
                twin.ask(Build(params))
            except MoeprofError as error:
                why = error.message
        if why and twin is not None:
            twin.close()
            self.twin = None
        if baseline in servers:
            self.store.record(baseline, twin_process=not why)
            self.store.note(*([note("twin-shared", why=why)] if why else []))

    def _room(self, baseline: WorkerProcess) -> bool:
        """Whether memory holds one more process like the baseline's."""
        if self.store.manifest.device == "cpu":
            return load.has_room(baseline.process.pid, ROOM_SHARE / self.plan.local_ranks)
        now = self._gpu()
        if now is None or now.memory_bytes is None or now.memory_used_bytes is None:
            return False
        return self.process_bytes < ROOM_SHARE * (now.memory_bytes - now.memory_used_bytes)

    def _time(self, servers: dict[str, WorkerProcess]) -> None:
        """Rounds of all variants."""

        def failed(name: str, error: MoeprofError) -> None:
            self._fail(servers, name, error)

        workers = Workers(servers, self.twin, (self.uuid, *self.rank_uuids))
        Timing(self.plan.request, self.store, self.progress, workers, failed).run()
        for name in servers:
            self.store.record(name, status="ok")

    def _memory(self) -> int:
        """Bytes of GPU memory that the workers took."""
        before, now = next(iter(self.store.manifest.environment.gpus_before), None), self._gpu()
        if before is None or now is None:
            return 0
        return max((now.memory_used_bytes or 0) - (before.memory_used_bytes or 0), 0)

    def _gpu(self) -> Gpu | None:
        return nvml.gpu(self.uuid) if self.store.manifest.device == "cuda" else None
