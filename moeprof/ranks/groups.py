"""Which traces are the ranks of one program, and their numbers: each trace is read once and dropped before the next one is.

A group is one trace in which several processes or GPUs work, a folder of one trace a rank, or a capture's variant that ran
on several ranks (docs/reference/ranks.md says how a rank is told).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from moeprof.errors import MoeprofError, TraceError, UsageError
from moeprof.notes import Note, note
from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.model import GroupAnalysis, Place
from moeprof.ranks.summary import RankFacts, facts
from moeprof.storage import manifest
from moeprof.storage.manifest import Manifest, Part, Rank, VariantRecord
from moeprof.trace import Trace, open_trace
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.discover import TraceFile, below
from moeprof.trace.origin import in_name
from moeprof.trace.peek import peek
from moeprof.trace.split import Piece, split
from moeprof.worker.clock_offset import Offset

FEW = 16  # ranks of which a page draws lanes
LINK_CEILINGS = ("bus_gb_per_s", "peer_gb_per_s")  # of a manifest, the first that is there: between GPUs
LOAD_WORDS = ("expert", "rows", "tokens")  # a fact whose name holds one and whose value is a list is a load
CLOCK_WORD = "clock_mhz"  # a fact whose name holds it, with one number a rank, is the ranks' SM clock

Progress = Callable[[int, int, str], None]  # which one, of how many, its name
Grouped = tuple[GroupAnalysis, tuple[RankFacts, ...]]


@dataclass(frozen=True)
class Member:
    """One trace file of a group. ``rank`` where the file is of one rank; ``told`` what a manifest says of those inside."""

    path: Path
    rank: int | None = None
    derived: str = ""
    told: tuple[Rank, ...] = ()
    zero: Offset | None = None  # of the trace, by its host's clock, where its capture found it


@dataclass(frozen=True)
class Group:
    """The files of one group with what else is known: the link's ceiling, loads and SM clocks that were captured beside them."""

    name: str
    members: tuple[Member, ...]
    variant: str | None = None
    link_ceiling_gb_per_s: float | None = None
    series: tuple[tuple[str, tuple[float, ...]], ...] = ()
    failed: tuple[str, ...] = ()  # ranks without a trace, and why
    declared_bytes: int | None = None  # over the link, of a rank in an iteration


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
    members = tuple(
        Member(
            folder / part.file,
            part.rank,
            "manifest" if part.rank is not None else "",
            _told(record.ranks, part),
            None if part.zero_utc_ns is None else Offset(part.zero_utc_ns, part.zero_uncertainty_ns),
        )
        for part in record.parts
        if part.kind == "trace"
    )
    ceiling = next((capture.ceilings[name] for name in LINK_CEILINGS if name in capture.ceilings), None)
    failed = tuple(f"rank {rank.rank}: {rank.reason or rank.status}" for rank in record.ranks if rank.status != "ok")
    over_link = (capture.limit or {}).get("bytes_ceiling") in LINK_CEILINGS
    declared = record.bytes_moved if over_link else None
    return Group(folder.resolve().name, members, record.name, ceiling, tuple(_series(record)), failed, declared)


def _told(ranks: tuple[Rank, ...], part: Part) -> tuple[Rank, ...]:
    """Those that can be in a part: its own rank, or all of its host."""
    return tuple(r for r in ranks if r.rank == part.rank or (part.rank is None and r.host == part.host))


def _series(record: VariantRecord) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Facts as series: a number or the sum of a list from each rank; a list that is the same on all of them as it is."""
    for name, value in record.facts.items():
        each = [rank.facts.get(name) for rank in record.ranks] or [value]
        if all(isinstance(own, tuple) for own in each):
            lists = [own for own in each if isinstance(own, tuple)]
            yield name, lists[0] if len(set(lists)) == 1 else tuple(sum(own) for own in lists)
        elif len(each) > 1 and all(isinstance(own, (int, float)) for own in each):
            yield name, tuple(float(own) for own in each if isinstance(own, (int, float)))


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
    few = len(group.members) <= FEW
    found: list[RankFacts] = []
    failed = list(group.failed)
    for number, member in enumerate(group.members):
        try:
            with open_trace(member.path, classes) as trace:
                found += _facts_of(trace, member, range_name, few)
        except UsageError:
            raise
        except MoeprofError as error:
            failed.append(error.message)
        progress(number + 1, len(group.members), member.path.name)
    _refuse(group, found, failed)
    series = dict(group.series)
    loads = {name: value for name, value in series.items() if any(word in name.lower() for word in LOAD_WORDS)}
    analysis = analyse_ranks(group.name, found, group.link_ceiling_gb_per_s, loads, _clocks(series, found))
    notes = (*_unread(failed), *analysis.notes)
    return replace(analysis, variant=group.variant, declared_bytes=group.declared_bytes, notes=notes), tuple(found)


def drawn(group: Group, found: tuple[RankFacts, ...], ranks: Sequence[int], classes: Classes) -> tuple[RankFacts, ...]:
    """The facts of a group, with bars for lanes: where they were left out, of many ranks, ``ranks`` are read again."""
    files = {f.place.file for f in found if f.place.rank in ranks and not f.owners}
    again: dict[int, RankFacts] = {}
    for member in (m for m in group.members if m.path.name in files):
        with open_trace(member.path, classes) as trace:
            again |= {f.place.rank: f for f in _facts_of(trace, member, None, True)}
    return tuple(replace(f, owners=again[f.place.rank].owners) if f.place.rank in again else f for f in found)


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


def _facts_of(trace: Trace, member: Member, range_name: str | None, bars: bool) -> list[RankFacts]:
    pieces = split(trace)
    if len(pieces) > 1 and member.rank is not None:  # one rank was told: its GPU is the one with most of the work
        pieces = (max(pieces, key=lambda p: len(p.trace.ops)),)
    found = []
    for number, piece in enumerate(pieces):
        place = _place(piece, number, member)
        own = facts(place, piece.trace, range_name, bars and len(pieces) <= FEW)
        found += [own] if own is not None else []
    return found


def _place(piece: Piece, number: int, member: Member) -> Place:
    """The rank by its file or the manifest, else by the order of GPUs."""
    origin, told = piece.trace.origin, _entry(piece, member)
    rank, derived = (
        number + min((entry.rank for entry in member.told), default=0),
        "the order of GPUs and processes in the trace",
    )
    if member.rank is not None:
        rank, derived = member.rank, member.derived
    elif told is not None:
        rank, derived = told.rank, "manifest"
    place = Place(
        rank,
        derived,
        member.path.name,
        piece.device,
        piece.pid,
        None,
        origin.world_size,
        None,
        origin.zero_utc_ns,
        piece.stray,
    )
    return place if told is None else _timed(place, told, member.zero)


def _timed(place: Place, told: Rank, zero: Offset | None) -> Place:
    """With its host and where the host's clock stands, as the manifest tells."""
    place = replace(place, host=f"host{told.host}")
    if told.clock_offset_ns is not None:
        place = replace(place, clock_offset_ns=-told.clock_offset_ns, clock_uncertainty_ns=told.clock_uncertainty_ns)
    if zero is None:
        return place
    return replace(place, zero_utc_ns=zero.ns, clock_uncertainty_ns=place.clock_uncertainty_ns + zero.uncertainty_ns)


def _entry(piece: Piece, member: Member) -> Rank | None:
    """The manifest's entry of a piece: of its file, else its process, else the only one on its GPU."""
    if member.rank is not None:
        return next(iter(member.told), None)
    of_process = [entry for entry in member.told if piece.pid is not None and entry.pid == piece.pid]
    of_device = [entry for entry in member.told if entry.device_index == piece.device]
    return next((found[0] for found in (of_process, of_device) if len(found) == 1), None)


def _unread(failed: list[str]) -> Iterator[Note]:
    if failed:
        yield note("rank-unread", count=len(failed), why=failed[0])
