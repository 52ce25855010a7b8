"""What further hosts traced, as parts of a variant on rank 0's host, with where every host's clock stood."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from moeprof.capture import ranks
from moeprof.capture.hosts import Hosts
from moeprof.capture.postprocess import Anchors
from moeprof.errors import MoeprofError
from moeprof.notes import note
from moeprof.storage.capture_folder import Store
from moeprof.storage.json import decode
from moeprof.storage.manifest import Part, Rank
from moeprof.worker.clock_offset import Offset, throughout
from moeprof.worker.messages import ErrorReply, Measured

Clocks = Mapping[int, Offset | None]  # by host


@dataclass(frozen=True)
class Traced:
    """A traced run of a variant by ``tool`` ("nsys" or "torch"), and the anchors that its ranks say they pushed."""

    variant: str
    tool: str
    room: str
    iterations: int
    anchors: Anchors


def anchors(processes: Iterable[Measured]) -> Anchors:
    """The anchors that each rank of a traced run pushed."""
    return {process.rank: process.anchors for process in processes}


def placed(part: Part, zero: Offset | None) -> Part:
    """A part whose zero is known by its host's clock."""
    return part if zero is None else replace(part, zero_utc_ns=zero.ns, zero_uncertainty_ns=zero.uncertainty_ns)


def keep(store: Store, hosts: Hosts, run: Traced, before: Clocks, after: Clocks) -> None:
    """Collect the parts of every further host, and note where clocks stood before and after the run.

    Raises:
        MoeprofError: the first thing that is missing, when all else was kept.
    """
    problems: list[MoeprofError] = []
    for host in hosts.further:
        try:
            problems += _of_host(store, hosts, run, host)
        except MoeprofError as error:
            problems.append(error)
    _clocked(store, run.variant, before, after)
    for problem in problems:
        ranks.failed(store, run.variant, problem)
    if problems:
        raise problems[0]


def _of_host(store: Store, hosts: Hosts, run: Traced, host: int) -> list[MoeprofError]:
    """The parts of one host; what it says is missing."""
    there = [rank for rank in store.variant(run.variant).ranks if rank.host == host]
    asked = {
        "ranks": [{"rank": rank.rank, "pid": rank.pid} for rank in there], "iterations": run.iterations,
        "anchors": {r.rank: [[a.before, a.after] for a in run.anchors.get(r.rank, ())] for r in there},
    }  # fmt: skip
    said = hosts.collect(host, run.room, asked, store.scratch)
    for file in said["files"]:
        name = f"{run.variant}/{file['file']}"
        kept = store.partial(name)
        shutil.move(store.scratch / file["file"], kept)
        tool: Literal["nsys", "torch"] = "nsys" if run.tool == "nsys" else "torch"
        part = Part("trace", tool, name, tuple(file["argv"]), run.iterations, "", 0, file["rank"], host)
        store.keep(run.variant, kept, placed(part, Offset(*file["zero"]) if file["zero"] else None))
    return [decode(ErrorReply, problem).exception() for problem in said["problems"]]


def _clocked(store: Store, name: str, before: Clocks, after: Clocks) -> None:
    """How far the clock of each further host was ahead from before the run until after it; None where that, or a trace's own zero, is
    not known: then times of different hosts are not compared by it."""
    parts = [part for part in store.variant(name).parts if part.kind == "trace"]
    known = bool(parts) and all(part.zero_utc_ns is not None for part in parts)
    held = {host: _held(before.get(host), after.get(host)) if known else None for host in {**before, **after}}
    found = tuple(_moved(rank, held.get(rank.host)) if rank.host else rank for rank in store.variant(name).ranks)
    store.record(name, ranks=found)
    unknown = ", ".join(str(host) for host in sorted(held) if held[host] is None)
    if unknown and parts:
        store.note(note("no-clock", variant=name, hosts=unknown))


def _held(first: Offset | None, last: Offset | None) -> tuple[Offset, int] | None:
    """What held all the while, and the drift."""
    return None if first is None or last is None else (throughout(first, last), last.ns - first.ns)


def _moved(rank: Rank, held: tuple[Offset, int] | None) -> Rank:
    if held is None:
        return replace(rank, clock_offset_ns=None)
    offset, drift = held
    return replace(rank, clock_offset_ns=offset.ns, clock_uncertainty_ns=offset.uncertainty_ns, clock_drift_ns=drift)
