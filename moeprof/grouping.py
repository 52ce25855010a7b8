"""Which files are the ranks of one group, and their facts: each trace is read once and dropped before the next one is.

A group is a capture's variant with one trace a rank, a folder whose traces tell different ranks, or one trace in which
several processes or GPUs work (docs/ranks.md says how a rank is told).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from moeprof import manifest
from moeprof.analysing import opened
from moeprof.errors import MoeprofError, TraceError
from moeprof.manifest import Manifest, Part, VariantRecord
from moeprof.metrics.group import GroupAnalysis, Place
from moeprof.metrics.rankfacts import RankFacts, facts
from moeprof.metrics.ranks import analyse_ranks
from moeprof.notes import Note, note
from moeprof.trace import Trace
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.origin import in_name, in_ranges, peek
from moeprof.trace.split import Piece, split

FEW = 16  # ranks of which a page draws lanes
LINK_CEILINGS = ("bus_gb_per_s", "peer_gb_per_s")  # of a manifest, the first that is there: between GPUs
LOAD_WORDS = ("expert",)  # a fact whose name holds one and whose value is a list is a load
TRACE_ENDINGS = (".sqlite", ".nsys-rep", ".json", ".json.gz")
KINETO_WORDS = (b'"traceEvents"', b'"schemaVersion"', b'"deviceProperties"', b'"distributedInfo"')

Progress = Callable[[int, int], None]  # done, all


@dataclass(frozen=True)
class Member:
    """One trace file of a group, and what the manifest or its name says of it."""

    path: Path
    rank: int | None = None
    derived: str = ""
    part: Part | None = None


@dataclass(frozen=True)
class Group:
    """The files of one group with what else is known: the link's ceiling and loads that were captured beside them."""

    name: str
    members: tuple[Member, ...]
    variant: str | None = None
    link_ceiling_gb_per_s: float | None = None
    series: tuple[tuple[str, tuple[float, ...]], ...] = ()


def groups(path: Path) -> tuple[Group, ...]:
    """The groups of ranks at ``path``; empty where it is none: a capture of single traces, or any other folder or file."""
    if path.is_file():
        return ()
    if (path / manifest.FILE).is_file():
        found = manifest.read(path)
        return tuple(_of_variant(path, found, record) for record in found.variants if record.rank_parts)
    members = _of_folder(path)
    return (Group(path.resolve().name, members),) if members else ()


def _of_variant(folder: Path, capture: Manifest, record: VariantRecord) -> Group:
    members = tuple(Member(folder / p.file, p.rank, "manifest", p) for p in record.rank_parts)
    ceiling = next((capture.ceilings[name] for name in LINK_CEILINGS if name in capture.ceilings), None)
    series = tuple(
        (name, value)
        for name, value in record.facts.items()
        if isinstance(value, tuple) and any(word in name.lower() for word in LOAD_WORDS)
    )
    return Group(folder.name, members, record.name, ceiling, series)


def _of_folder(folder: Path) -> tuple[Member, ...]:
    """The folder's own traces by rank, where all of them tell one, no two the same, and the same number of ranks."""
    files = traces_in(folder)
    if len(files) < 2:
        return ()
    told = [(file, peek(file)) for file in files]
    members = [
        Member(file, origin.rank, origin.told_by)
        if origin.rank is not None
        else Member(file, in_name(file), "file name")
        for file, origin in told
    ]
    ranks = [m.rank for m in members]
    sizes = {origin.world_size for _, origin in told if origin.world_size is not None}
    if None in ranks or len(set(ranks)) < len(ranks) or len(sizes) > 1:
        return ()
    return tuple(sorted(members, key=lambda m: m.rank or 0))


def traces_in(folder: Path) -> list[Path]:
    """The trace files that lie in the folder itself, by name; an export takes the place of the report that it is of."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and is_trace(p))
    return [p for p in files if p.suffix != ".nsys-rep" or p.with_suffix(".sqlite") not in files]


def is_trace(path: Path) -> bool:
    """By its name; a JSON file must hold one of a Kineto trace's words among its first."""
    if path.name.startswith(".") or not path.name.endswith(TRACE_ENDINGS):
        return False
    if not path.name.endswith(".json"):
        return True
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return any(word in head for word in KINETO_WORDS)


def analyse_group(
    group: Group,
    range_name: str | None = None,
    classes: Classes = COMMUNICATION,
    progress: Progress = lambda done, of: None,
) -> tuple[GroupAnalysis, tuple[RankFacts, ...]]:
    """The numbers of a group, and the facts of its ranks (drawn, where they are few).

    A file that cannot be read is left out with a note.

    Raises:
        TraceError: none can be read, or two files tell the same rank.
    """
    drawn = len(group.members) <= FEW
    found: list[RankFacts] = []
    failed: list[str] = []
    for number, member in enumerate(group.members):
        progress(number, len(group.members))
        try:
            with opened(member.path, classes) as trace:
                found += _facts_of(trace, member, range_name, drawn)
        except MoeprofError as error:
            failed.append(error.message)
    progress(len(group.members), len(group.members))
    if not found:
        raise TraceError(
            f"{group.name}: no rank has GPU work" + (f"; {failed[0]}" if failed else ""),
            "see moeprof analyze of one file",
        )
    ranks = sorted(f.place.rank for f in found)
    twice = next((a for a, b in pairwise(ranks) if a == b), None)
    if twice is not None:
        files = ", ".join(f.place.file for f in found if f.place.rank == twice)
        raise TraceError(f"{group.name}: rank {twice} is told twice, by {files}", "keep one trace a rank")
    analysis = analyse_ranks(group.name, found, group.link_ceiling_gb_per_s, dict(group.series))
    return replace(analysis, variant=group.variant, notes=(*_unread(failed), *analysis.notes)), tuple(found)


def of_trace(trace: Trace, range_name: str | None = None) -> tuple[GroupAnalysis, tuple[RankFacts, ...]] | None:
    """The ranks of one trace, where several processes or GPUs work in it; else None."""
    pieces = split(trace)
    if len(pieces) < 2:
        return None
    found = _facts_of_pieces(trace, pieces, Member(trace.path), range_name, len(pieces) <= FEW)
    return (analyse_ranks(trace.path.name, found), tuple(found)) if len(found) > 1 else None


def _facts_of(trace: Trace, member: Member, range_name: str | None, drawn: bool) -> list[RankFacts]:
    pieces = split(trace)
    if member.part is not None and member.part.device_index is not None:
        pieces = tuple(p for p in pieces if p.device == member.part.device_index)
    if len(pieces) > 1 and member.rank is not None:  # one rank was told: its GPU is the one with most of the work
        pieces = (max(pieces, key=lambda p: len(p.trace.ops)),)
    return _facts_of_pieces(trace, pieces, member, range_name, drawn)


def _facts_of_pieces(
    trace: Trace, pieces: tuple[Piece, ...], member: Member, range_name: str | None, drawn: bool
) -> list[RankFacts]:
    pushed = in_ranges(trace)
    found = []
    for number, piece in enumerate(pieces):
        rank, derived = _rank(piece, number, member, pushed)
        part = member.part
        place = Place(
            rank, derived, member.path.name, piece.device, piece.pid, part.host if part else None, trace.origin.world_size,
            part.clock_offset_ns if part else None, trace.origin.zero_utc_ns,
        )  # fmt: skip
        own = facts(place, piece.trace, range_name, drawn)
        found += [own] if own is not None else []
    return found


def _rank(piece: Piece, number: int, member: Member, pushed: dict[int, int]) -> tuple[int, str]:
    """By the manifest, the trace or the file's name, else by the range that processes push, else by the order of GPUs."""
    if member.rank is not None:
        return member.rank, member.derived
    if piece.pid in pushed:
        return pushed[piece.pid], "the range moeprof@rank"
    return number, "the order of GPUs and processes in the trace"


def _unread(failed: list[str]) -> Iterator[Note]:
    if failed:
        yield note("rank-unread", count=len(failed), why=failed[0])
