"""Clean timing: every variant in a process of its own, proven first, then timed in interleaved rounds with no profiler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from moeprof import tools
from moeprof.capture.plan import ROUND_SECONDS, Request, Target, serve
from moeprof.capture.processes import Server
from moeprof.capture.progress import Progress
from moeprof.capture.store import Store
from moeprof.codec import decode
from moeprof.errors import MoeprofError, ToolError, WorkloadError
from moeprof.manifest import Gpu, Round
from moeprof.notes import note
from moeprof.workload import Proof


@dataclass
class Clean:
    """The clean phase of one capture; ``problems`` collects what failed, variant by variant."""

    request: Request
    store: Store
    progress: Progress
    problems: list[MoeprofError]
    bytes_each: int = 0  # GPU memory that one variant's process takes, once all are built; 0: not known

    def run(self, targets: dict[str, Target]) -> dict[str, Target]:
        """Prove and time the targets; those that may be profiled, with resolved parameters."""
        servers: dict[str, Server] = {}
        try:
            self.progress.phase("prove", len(targets))
            for name, target in targets.items():  # all start before any is waited for: imports take seconds
                servers[name] = Server(name, serve(target), self.store.log(name, "clean"), self.request.timeout_s)
            self._greet(servers, targets)
            params = self._prepare(servers)
            self._prove(servers, params)
            self.bytes_each = self._memory() // max(len(servers), 1)
            self._rounds(servers)
            return {n: Target(t.workload, t.variant, t.device, params) for n, t in targets.items() if n in servers}
        finally:
            for server in servers.values():
                server.close()

    def _fail(self, servers: dict[str, Server], name: str, error: MoeprofError) -> None:
        servers.pop(name).close()
        self.problems.append(error)
        self.store.record(name, status="failed", reason=error.message)

    def _greet(self, servers: dict[str, Server], targets: dict[str, Target]) -> None:
        """Take each worker's first line: versions, and why a variant cannot run here."""
        for name in list(servers):
            try:
                hello = servers[name].hear()
            except MoeprofError as error:
                self._fail(servers, name, error)
                continue
            if targets[name].device == "cuda" and not hello["machine"]["cuda"]:
                raise ToolError("torch sees no GPU here", "install a CUDA build of torch, or give --device cpu")
            self._versions(hello["versions"])
            if hello["skip"]:
                servers.pop(name).close()
                self.store.record(name, status="skipped", reason=hello["skip"])
                self.store.note(note("variant-skipped", variant=name, why=hello["skip"]))
                self.progress.step(f"{name} SKIPPED: {hello['skip']}")

    def _versions(self, versions: dict[str, Any]) -> None:
        environment = self.store.manifest.environment
        if environment.torch is None:
            self.store.update(environment=replace(environment, torch=versions["torch"], cuda=versions["cuda"]))

    def _prepare(self, servers: dict[str, Server]) -> dict[str, Any]:
        """Concrete parameters and the ceilings, measured once, by the baseline's worker if it is there."""
        baseline = self.store.manifest.baseline
        names = sorted(servers, key=lambda name: name != baseline)
        if not names:
            return self.store.manifest.params
        reply = servers[names[0]].ask({"do": "prepare", "params": self.store.manifest.params})
        self.store.update(params=reply["params"], ceilings=reply["ceilings"])
        resolved: dict[str, Any] = reply["params"]
        return resolved

    def _build(self, servers: dict[str, Server], params: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What each worker says of what it built. They build side by side, which compiles for some; all are heard before the
        first proof, so that a kernel that is chosen by timing is timed beside builds alone."""
        for server in servers.values():
            server.tell({"do": "build", "params": params})
        found = {}
        for name in list(servers):
            try:
                found[name] = servers[name].hear()
            except MoeprofError as error:
                self._fail(servers, name, error)
        return found

    def _prove(self, servers: dict[str, Server], params: dict[str, Any]) -> None:
        """Build all, then prove one at a time."""
        for name, built in self._build(servers, params).items():
            try:
                proven = servers[name].ask({"do": "prove"})
                proof = decode(Proof, proven["proof"])
            except MoeprofError as error:
                self._fail(servers, name, error)
                continue
            self.store.record(
                name, proof=proof, flops=built["flops"], bytes_moved=built["bytes_moved"], facts=proven["facts"]
            )
            if proof.ok:
                self.progress.step(f"{name} proven: {proof.checked}")
            else:
                self._fail(servers, name, WorkloadError(f"{name} is wrong: {proof.reason}", "it is not timed"))

    def _rounds(self, servers: dict[str, Server]) -> None:
        """Rounds of all variants, the order rotated by one each time."""
        self.progress.phase("time", self.request.rounds * len(servers))
        for index in range(self.request.rounds):
            names = list(servers)
            turn = index % max(len(names), 1)
            for position, name in enumerate(names[turn:] + names[:turn]):
                try:
                    times = servers[name].ask({"do": "round", "seconds": ROUND_SECONDS})["times_ns"]
                except MoeprofError as error:
                    self._fail(servers, name, error)
                    continue
                self._keep(name, Round(index, position, tuple(times), self._gpu()))
                self.progress.step(f"round {index + 1}: {name}")
        for name in servers:
            self.store.record(name, status="ok")

    def _keep(self, name: str, done: Round) -> None:
        self.store.record(name, rounds=(*self.store.variant(name).rounds, done))

    def _memory(self) -> int:
        """Bytes of GPU memory that the workers took."""
        before, now = next(iter(self.store.manifest.environment.gpus_before), None), self._gpu()
        if before is None or now is None:
            return 0
        return max((now.memory_used_bytes or 0) - (before.memory_used_bytes or 0), 0)

    def _gpu(self) -> Gpu | None:
        found = tools.gpus() if self.store.manifest.device == "cuda" else ()
        return found[0] if found else None
