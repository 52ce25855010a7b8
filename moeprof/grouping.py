"""Which traces are the ranks of one program, and their numbers: each trace is read once and dropped before the next one is.

A group is one trace in which several processes or GPUs work, a folder of one trace a rank, or a capture's variant that ran
on several ranks (docs/rank_analysis.md says how a rank is told).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from moeprof import manifest
from moeprof.analysing import opened
from moeprof.errors import MoeprofError, TraceError, UsageError
from moeprof.manifest import Manifest, VariantRecord
from moeprof.metrics.group import GroupAnalysis, Place
from moeprof.metrics.rankfacts import RankFacts, facts
from moeprof.metrics.ranks import analyse_ranks
from moeprof.notes import Note, note
from moeprof.trace import Trace
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.origin import in_name, in_ranges
from moeprof.trace.peek import peek
from moeprof.trace.split import Piece, split
from moeprof.tracefiles import TraceFile, below

FEW = 16  # ranks of which a page draws lanes
LINK_CEILINGS = ("bus_gb_per_s", "peer_gb_per_s")  # of a manifest, the first that is there: between GPUs
LOAD_WORDS = ("expert", "rows", "tokens")  # a fact whose name holds one and whose value is a list is a load
CLOCK_WORD = "clock_mhz"  # a fact whose name holds it, with one number a rank, is the ranks' SM clock

Progress = Callable[[int, int, str], None]  # which one, of how many, its name
Grouped = tuple[GroupAnalysis, tuple[RankFacts, ...]]


@dataclass(frozen=True)
class Told:
    """What a manifest says of one rank; None where it does not."""

    rank: int
    host: str | None = None
    device: int | None = None
    pid: int | None = None
    clock_offset_ns: int | None = None


@dataclass(frozen=True)
class Member:
    """One trace file of a group. ``rank`` where the file is of one rank, ``told`` where a manifest names those inside."""

    path: Path
    rank: int | None = None
    derived: str = ""
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class Group:
    """The files of one group with what else is known: the link's ceiling, loads and SM clocks that were captured beside them."""

    name: str
    members: tuple[Member, ...]
    variant: str | None = None
    link_ceiling_gb_per_s: float | None = None
    series: tuple[tuple[str, tuple[float, ...]], ...] = ()
    failed: tuple[str, ...] = ()  # ranks without a trace, and why


def silent(number: int, of: int, label: str) -> None:
    """A progress that says nothing."""


def groups(path: Path) -> tuple[Group, ...]:
    """The groups at ``path``: a trace file, a capture (one a variant that has a trace), or a folder of one trace a rank.

    Raises:
        UsageError: there is nothing, or the ranks of a folder's traces cannot be told.
    """
    if path.is_file():
        return (Group(path.name, (Member(path),)),)
    if not path.is_dir():
        raise UsageError(f"there is nothing at {path}", "give a trace, a capture, or a folder of one trace a rank")
    if not (path / manifest.FILE).is_file():
        return (Group(path.resolve().name, _of_folder(path)),)
    found = manifest.read(path)
    several = tuple(_of_variant(path, found, record) for record in found.variants if record.part("trace"))
    if not several:
        raise UsageError(f"{path} holds no trace", "capture again with --tools nsys or torch")
    return several


def _of_variant(folder: Path, capture: Manifest, record: VariantRecord) -> Group:
    said: Sequence[Any] = getattr(record, "ranks", ()) or getattr(capture, "ranks", ())
    told = tuple(_told(entry) for entry in said)
    parts = [part for part in record.parts if part.kind == "trace"]
    members = tuple(Member(folder / p.file, told=_on_host(told, getattr(p, "host", None))) for p in parts)
    ceiling = next((capture.ceilings[name] for name in LINK_CEILINGS if name in capture.ceilings), None)
    series = tuple((name, value) for name, value in record.facts.items() if isinstance(value, tuple))
    failed = tuple(f"rank {e.rank}: {e.reason or e.status}" for e in said if getattr(e, "status", "ok") != "ok")
    return Group(folder.resolve().name, members, record.name, ceiling, series, failed)


def _told(entry: Any) -> Told:
    return Told(
        entry.rank,
        getattr(entry, "host", None),
        getattr(entry, "device", None),
        getattr(entry, "pid", None),
        getattr(entry, "clock_offset_ns", None),
    )


def _on_host(told: tuple[Told, ...], host: str | None) -> tuple[Told, ...]:
    return tuple(entry for entry in told if host is None or entry.host == host)


def _of_folder(folder: Path) -> tuple[Member, ...]:
    """The folder's traces by rank."""
    files = below(folder)
    if not files:
        raise UsageError(f"{folder} holds no trace", "give a trace, a capture, or a folder of one trace a rank")
    inside = next((file for file in files if file.variant is not None or file.error is not None), None)
    if inside is not None:
        raise UsageError(f"{folder} holds the capture {Path(inside.label).parts[0]}", "name one capture")
    if len(files) == 1:
        return (Member(files[0].path),)
    members = [_of_file(file) for file in files]
    unknown = [m.path.name for m in members if m.rank is None]
    if unknown:
        raise UsageError(
            f"{folder}: {len(unknown)} of {len(files)} traces do not tell their rank, {unknown[0]} is the first",
            "name them rank0, rank1 and so on",
        )
    return tuple(sorted(members, key=lambda m: m.rank or 0))


def _of_file(file: TraceFile) -> Member:
    origin = peek(file.path)
    if origin.rank is not None:
        return Member(file.path, origin.rank, origin.told_by)
    return Member(file.path, in_name(file.path), "file name")


def analyse_group(
    group: Group,
    range_name: str | None = None,
    classes: Classes = COMMUNICATION,
    progress: Progress = silent,
) -> Grouped:
    """The numbers of a group, and the facts of its ranks (drawn, where they are few).

    A file that cannot be read is left out with a note.

    Raises:
        TraceError: fewer than two ranks have GPU work, or two files tell the same rank.
        UsageError: a rank has no range of that name.
    """
    drawn = len(group.members) <= FEW
    found: list[RankFacts] = []
    failed = list(group.failed)
    for number, member in enumerate(group.members):
        try:
            with opened(member.path, classes) as trace:
                found += _facts_of(trace, member, range_name, drawn)
        except UsageError:
            raise
        except MoeprofError as error:
            failed.append(error.message)
        progress(number + 1, len(group.members), member.path.name)
    _refuse(group, found, failed)
    series = dict(group.series)
    loads = {name: value for name, value in series.items() if any(word in name.lower() for word in LOAD_WORDS)}
    analysis = analyse_ranks(group.name, found, group.link_ceiling_gb_per_s, loads, _clocks(series, found))
    return replace(analysis, variant=group.variant, notes=(*_unread(failed), *analysis.notes)), tuple(found)


def _refuse(group: Group, found: list[RankFacts], failed: list[str]) -> None:
    """What has no second rank, or one rank twice."""
    if len(found) < 2:
        held = "one rank" if found else "no rank"
        why = f" ({failed[0]})" if failed else ""
        what = f"{group.name} {group.variant}" if group.variant else group.name
        raise TraceError(f"{what} holds GPU work of {held}: there is nothing to compare{why}", "see moeprof analyze")
    twice = next((a for a, b in pairwise(sorted(f.place.rank for f in found)) if a == b), None)
    if twice is not None:
        files = ", ".join(f.place.file for f in found if f.place.rank == twice)
        raise TraceError(f"{group.name}: rank {twice} is told twice, by {files}", "keep one trace a rank")


def _clocks(series: dict[str, tuple[float, ...]], found: Sequence[RankFacts]) -> dict[int, float]:
    """SM clocks by rank, where a fact gives one number a rank."""
    named = [value for name, value in series.items() if CLOCK_WORD in name.lower() and len(value) == len(found)]
    return dict(zip(sorted(f.place.rank for f in found), named[0], strict=True)) if named else {}


def _facts_of(trace: Trace, member: Member, range_name: str | None, drawn: bool) -> list[RankFacts]:
    pieces = split(trace)
    if len(pieces) > 1 and member.rank is not None:  # one rank was told: its GPU is the one with most of the work
        pieces = (max(pieces, key=lambda p: len(p.trace.ops)),)
    pushed = in_ranges(trace)
    found = []
    for number, piece in enumerate(pieces):
        place = _place(piece, number, member, pushed)
        own = facts(place, piece.trace, range_name, drawn and len(pieces) <= FEW)
        found += [own] if own is not None else []
    return found


def _place(piece: Piece, number: int, member: Member, pushed: dict[int, int]) -> Place:
    """The rank by its file, the manifest or the range that processes push, else by the order of GPUs."""
    origin, told = piece.trace.origin, _entry(piece, member.told)
    rank, derived = number, "the order of GPUs and processes in the trace"
    if member.rank is not None:
        rank, derived = member.rank, member.derived
    elif told is not None:
        rank, derived = told.rank, "manifest"
    elif piece.pid in pushed:
        rank, derived = pushed[piece.pid], "the range moeprof@rank"
    return Place(
        rank, derived, member.path.name, piece.device, piece.pid, told.host if told else None,
        len(member.told) or origin.world_size, told.clock_offset_ns if told else None, origin.zero_utc_ns,
    )  # fmt: skip


def _entry(piece: Piece, told: tuple[Told, ...]) -> Told | None:
    """The manifest's entry of a piece: its process, else the only one on its GPU."""
    of_process = [entry for entry in told if piece.pid is not None and entry.pid == piece.pid]
    of_device = [entry for entry in told if entry.device == piece.device]
    return next((found[0] for found in (of_process, of_device) if len(found) == 1), None)


def _unread(failed: list[str]) -> Iterator[Note]:
    if failed:
        yield note("rank-unread", count=len(failed), why=failed[0])
