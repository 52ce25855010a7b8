"""How many ranks a capture has, which process starts them, and what the manifest says of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from moeprof.capture.request import Request
from moeprof.errors import MoeprofError, ToolError, UsageError
from moeprof.machine import launcher, nvml
from moeprof.machine.launcher import Place, Team
from moeprof.storage.capture_folder import Store
from moeprof.storage.json import decode
from moeprof.storage.manifest import Rank
from moeprof.worker.clock_offset import Offset, throughout
from moeprof.worker.failures import RankError
from moeprof.worker.messages import Measured, Proven, RankProcess, RunResult
from moeprof.workload.find import load
from moeprof.workload.model import Workload


def elsewhere(request: Request, environment: Mapping[str, str], dry_run: bool = False) -> str | None:
    """The message for a rank that a launcher started and that has nothing to do: all ranks of a host are children of one process, so
    that they are in one trace with one clock. None if this process captures.

    Raises:
        UsageError: the launcher's variables do not fit, or the workload has no ranks.
    """
    place = launcher.place(environment)
    if place is None or request.workload is None or place.rank == 0 or (place.local_rank == 0 and not dry_run):
        return None
    count(request, load(request.workload), "cpu", environment)
    who, first = f"rank {place.rank} of {place.ranks}", place.rank - place.local_rank
    if place.local_rank == 0:
        return f"{who}: this capture runs the ranks of its host, as that of rank 0 decides"
    return f"{who}: the capture of rank {first} starts this rank and traces all of them; nothing to do here"


def several_hosts(request: Request, environment: Mapping[str, str]) -> Place | None:
    """The place of this process if a launcher started it for a workload with ranks on several hosts.

    Raises:
        UsageError: the launcher's variables do not fit.
    """
    place = None if request.workload is None else launcher.place(environment)
    if place is None or place.hosts == 1 or request.workload is None or not load(request.workload).ranks:
        return None
    return place


def team(request: Request, ranks: int | None, environment: Mapping[str, str]) -> Team:
    """The ranks by host, and the store that several hosts share.

    Raises:
        UsageError: the launcher names no address for it.
    """
    place = None if ranks is None else several_hosts(request, environment)
    return Team((ranks or 1,)) if place is None else place.team(environment)


def host(request: Request, environment: Mapping[str, str]) -> int:
    """The number of this host; 0 where there is one."""
    place = several_hosts(request, environment)
    return 0 if place is None else place.host


def count(request: Request, workload: Workload | None, device: str, environment: Mapping[str, str]) -> int | None:
    """How many ranks run; None for a program or a workload without ranks.

    Raises:
        UsageError: more than one process for a workload that has no ranks, or two numbers that differ.
        ToolError: this host has fewer GPUs than ranks.
    """
    place = None if workload is None else launcher.place(environment)
    wanted = request.nproc or (place.ranks if place else None)
    if workload is None or not workload.ranks:
        _one(workload, wanted or 1)
        return None
    if place is not None:
        _launched(place, wanted or place.ranks)
    gpus = len(nvml.gpus()) if device == "cuda" else None
    ranks = wanted or (launcher.RANKS_ON_CPU if gpus is None else gpus)
    here = ranks if place is None else place.local_ranks
    if gpus is not None and here > gpus:
        raise ToolError(
            f"{here} ranks need {here} GPUs, this host has {gpus}", "give a smaller --nproc, or --device cpu"
        )
    return ranks


def _one(workload: Workload | None, wanted: int) -> None:
    if wanted > 1:
        name = "a program" if workload is None else f"workload {workload.name!r}"
        raise UsageError(
            f"{name} runs in one process here, {wanted} were asked for",
            "drop --nproc or the launcher, or take a workload with ranks: moeprof list",
        )


def _launched(place: launcher.Place, wanted: int) -> None:
    if place.ranks != wanted:
        raise UsageError(f"--nproc {wanted}, and {place.launcher} started {place.ranks} ranks", "drop --nproc")


def started(store: Store, name: str, processes: Iterable[RankProcess]) -> None:
    """Record the processes of a variant; those of a later run replace the earlier ones, on the same hosts."""
    known = {rank.rank: rank for rank in store.variant(name).ranks}
    ranks = tuple(
        replace(known.get(p.rank, Rank(p.rank, p.host)), pid=p.pid, device_index=p.device_index, gpu_uuid=p.gpu_uuid)
        for p in processes
    )
    if ranks:
        store.record(name, ranks=ranks)


def other_gpus(processes: Iterable[RankProcess]) -> tuple[str, ...]:
    """The UUIDs of the GPUs of ranks 1 and up on this host; a rank without one is left out."""
    here = sorted((p for p in processes if p.rank and not p.host), key=lambda p: p.rank)
    return tuple(p.gpu_uuid for p in here if p.gpu_uuid)


def proven(store: Store, name: str, replies: Sequence[Proven]) -> None:
    """Record each rank's own proof and facts."""
    if replies:
        known = store.variant(name).ranks
        merged = [replace(r, proof=p.proof, facts=p.facts) for r, p in zip(known, replies, strict=True)]
        store.record(name, ranks=tuple(merged))


def failed(store: Store, name: str, error: MoeprofError) -> None:
    """Mark the rank that an error names, unless an earlier one did."""
    if isinstance(error, RankError):
        ranks = store.variant(name).ranks or tuple(Rank(r) for r in range(store.manifest.ranks))
        marked = (
            replace(r, status="failed", reason=r.reason or error.message) if r.rank == error.failure.rank else r
            for r in ranks
        )
        store.record(name, ranks=tuple(marked))


def clocked(store: Store, name: str, host: int, before: Offset | None, after: Offset | None) -> None:
    """Record how far the clock of a further host was ahead from before a variant's run until after it; None if that is not known:
    then times of different hosts are not compared."""
    clock: dict[str, int | None] = {"clock_offset_ns": None}
    if before is not None and after is not None:
        hull = throughout(before, after)
        clock = {
            "clock_offset_ns": hull.ns, "clock_uncertainty_ns": hull.uncertainty_ns, "clock_drift_ns": after.ns - before.ns,
        }  # fmt: skip
    entries = (replace(r, **clock) if r.host == host else r for r in store.variant(name).ranks)  # type: ignore[arg-type]
    store.record(name, ranks=tuple(entries))


def traced(result: Path) -> tuple[Measured, ...]:
    """The process of each rank of a run under a profiler, from the file that the run leaves at its end; none without it."""
    if not result.is_file():
        return ()
    return decode(RunResult, json.loads(result.read_text(encoding="utf-8")), result.name).ranks
