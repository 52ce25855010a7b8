"""The traces that are the ranks of one program, and their numbers. Each trace is read once and dropped before the next one.

A group is one trace in which several processes or GPUs work, a folder of one trace per rank, or a capture's variant that ran
on several ranks. docs/reference/ranks.md: how the rank of a trace is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from moeprof.errors import MoeprofError, TraceError, UsageError
from moeprof.notes import Note, note
from moeprof.ranks import lanes
from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.model import GroupAnalysis, Place
from moeprof.ranks.slices import JointWindow, RankTrace, joint
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

FEW = 16  # a page draws lanes of at most so many ranks
LINK_CEILINGS = ("bus_gb_per_s", "peer_gb_per_s")  # between GPUs; the first that the manifest contains
LOAD_WORDS = ("expert", "rows", "tokens")  # a fact with one of them in its name, and a list as value, is a load
CLOCK_WORD = "clock_mhz"  # a fact with it in its name, and one number per rank, is the ranks' SM clock
BY_ORDER = "the order of GPUs and processes in the trace"

Progress = Callable[[int, int, str], None]  # finished files, all files, the name of the file
Grouped = tuple[GroupAnalysis, tuple[RankFacts, ...]]


@dataclass(frozen=True)
class Member:
    """One trace file of a group.

    Args:
        rank: of the file; None where it contains several or does not name it.
        derived: how the rank is known.
        entries: of the manifest, for the ranks that can be in the file.
        zero: of the trace, by its host's clock; None where its capture did not find it.
    """

    path: Path
    rank: int | None = None
    derived: str = ""
    entries: tuple[Rank, ...] = ()
    zero: Offset | None = None


@dataclass(frozen=True)
class Group:
    """The files of one group, and what the capture recorded besides them: the link's ceiling, loads and SM clocks."""

    name: str
    members: tuple[Member, ...]
    variant: str | None = None
    link_ceiling_gb_per_s: float | None = None
    series: tuple[tuple[str, tuple[float, ...]], ...] = ()
    failed: tuple[str, ...] = ()  # ranks without a trace, and why
    declared_bytes: int | None = None  # over the link, of a rank in an iteration


def silent(number: int, of: int, label: str) -> None:
    """Report no progress."""


def groups(path: Path) -> tuple[Group, ...]:
    """The groups at ``path``: a trace file, a capture (one per variant that has a trace), or a folder of one trace per rank.

    Raises:
        UsageError: there is nothing, or a trace of a folder does not name its rank.
    """
    if path.is_file():
        return (Group(path.name, (Member(path),)),)
    if not path.is_dir():
        raise UsageError(f"there is nothing at {path}", "give a trace, a capture, or a folder of one trace per rank")
    if not (path / manifest.FILE).is_file():
        return (Group(path.resolve().name, _of_folder(path)),)
    stored = manifest.read(path)
    traced = tuple(_of_variant(path, stored, record) for record in stored.variants if record.part("trace"))
    if not traced:
        raise UsageError(f"{path} holds no trace", "capture again with --tools nsys or torch")
    return traced


def _of_variant(folder: Path, capture: Manifest, record: VariantRecord) -> Group:
    members = tuple(_member(folder, part, record.ranks) for part in record.parts if part.kind == "trace")
    ceiling = next((capture.ceilings[name] for name in LINK_CEILINGS if name in capture.ceilings), None)
    failed = tuple(f"rank {rank.rank}: {rank.reason or rank.status}" for rank in record.ranks if rank.status != "ok")
    over_link = (capture.limit or {}).get("bytes_ceiling") in LINK_CEILINGS
    declared = record.bytes_moved if over_link else None
    return Group(folder.resolve().name, members, record.name, ceiling, tuple(_series(record)), failed, declared)


def _member(folder: Path, part: Part, ranks: tuple[Rank, ...]) -> Member:
    """A part of one rank, or of all ranks of a host."""
    return Member(
        path=folder / part.file,
        rank=part.rank,
        derived="" if part.rank is None else "manifest",
        entries=tuple(r for r in ranks if r.rank == part.rank or (part.rank is None and r.host == part.host)),
        zero=None if part.zero_utc_ns is None else Offset(part.zero_utc_ns, part.zero_uncertainty_ns),
    )


def _series(record: VariantRecord) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Facts as series over the ranks: numbers, or sums of lists. A list that is equal on all ranks is a series itself."""
    for name, value in record.facts.items():
        by_rank = [rank.facts.get(name) for rank in record.ranks] or [value]
        lists = [fact for fact in by_rank if isinstance(fact, tuple)]
        numbers = [float(fact) for fact in by_rank if isinstance(fact, (int, float))]
        if len(lists) == len(by_rank):
            yield name, lists[0] if len(set(lists)) == 1 else tuple(sum(fact) for fact in lists)
        elif len(numbers) == len(by_rank) > 1:
            yield name, tuple(numbers)


def _of_folder(folder: Path) -> tuple[Member, ...]:
    """The traces of a folder by rank."""
    files = below(folder)
    if not files:
        raise UsageError(f"{folder} holds no trace", "give a trace, a capture, or a folder of one trace per rank")
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
        return Member(file.path, origin.rank, origin.rank_source)
    return Member(file.path, in_name(file.path), "file name")


def analyse_group(
    group: Group,
    range_name: str | None = None,
    classes: Classes = COMMUNICATION,
    progress: Progress = silent,
) -> Grouped:
    """The numbers of a group, and the facts of its ranks; with bars for lanes where there are at most FEW files.

    A file that cannot be read is left out, with a note.

    Raises:
        TraceError: fewer than two ranks have GPU work, or two files have the same rank.
        UsageError: a rank has no range of that name.
    """
    few = len(group.members) <= FEW
    ranks: list[RankFacts] = []
    failed = list(group.failed)
    for number, member in enumerate(group.members):
        try:
            with open_trace(member.path, classes) as trace:
                ranks += _facts_of(trace, member, range_name, few)
        except UsageError:
            raise
        except MoeprofError as error:
            failed.append(error.message)
        progress(number + 1, len(group.members), member.path.name)
    _refuse(group, ranks, failed)
    series = dict(group.series)
    loads = {name: value for name, value in series.items() if any(word in name.lower() for word in LOAD_WORDS)}
    analysis = analyse_ranks(group.name, ranks, group.link_ceiling_gb_per_s, loads, _clocks(series, ranks))
    notes = (*_unread(failed), *analysis.notes)
    return replace(analysis, variant=group.variant, declared_bytes=group.declared_bytes, notes=notes), tuple(ranks)


def with_bars(
    group: Group, facts: tuple[RankFacts, ...], ranks: Sequence[int], classes: Classes
) -> tuple[RankFacts, ...]:
    """The facts of a group with bars for lanes of ``ranks``. Where there are more than FEW, their files are read again."""
    files = {f.place.file for f in facts if f.place.rank in ranks and not f.owners}
    again: dict[int, RankFacts] = {}
    for member in (m for m in group.members if m.path.name in files):
        with open_trace(member.path, classes) as trace:
            again |= {f.place.rank: f for f in _facts_of(trace, member, None, True)}
    return tuple(replace(f, owners=again[f.place.rank].owners) if f.place.rank in again else f for f in facts)


def drawn(
    group: Group, facts: tuple[RankFacts, ...], analysis: GroupAnalysis, ranks: Sequence[int], classes: Classes
) -> JointWindow | None:
    """One window of ``ranks`` as one trace on the joint clock; their files are read again. None without a joint clock."""
    windows = {rank: window for rank, window in lanes.windows(facts, analysis).items() if rank in ranks}
    if not windows:
        return None
    with_lanes = lanes.lanes(with_bars(group, facts, ranks, classes), analysis)
    files = {f.place.file for f in facts if f.place.rank in windows}
    members = [m for m in group.members if m.path.name in files]
    return joint((part for member in members for part in _rank_traces(member, classes)), windows, with_lanes)


def _rank_traces(member: Member, classes: Classes) -> Iterator[RankTrace]:
    with open_trace(member.path, classes) as trace:
        for piece, place in _placed(trace, member):
            if len(piece.trace.ops):
                yield RankTrace(place.rank, piece.device, piece.trace)


def _refuse(group: Group, ranks: list[RankFacts], failed: list[str]) -> None:
    """Refuse a group without a second rank, or with one rank twice."""
    if len(ranks) < 2:
        count = "one rank" if ranks else "no rank"
        why = f" ({failed[0]})" if failed else ""
        what = f"{group.name} {group.variant}" if group.variant else group.name
        raise TraceError(f"{what} holds GPU work of {count}: there is nothing to compare{why}", "see moeprof analyze")
    twice = next((a for a, b in pairwise(sorted(f.place.rank for f in ranks)) if a == b), None)
    if twice is not None:
        files = ", ".join(f.place.file for f in ranks if f.place.rank == twice)
        raise TraceError(f"{group.name}: rank {twice} is in two files: {files}", "keep one trace per rank")


def _clocks(series: dict[str, tuple[float, ...]], ranks: Sequence[RankFacts]) -> dict[int, float]:
    """SM clocks in MHz by rank, where a fact has one number per rank."""
    clocks = [value for name, value in series.items() if CLOCK_WORD in name.lower() and len(value) == len(ranks)]
    return dict(zip(sorted(f.place.rank for f in ranks), clocks[0], strict=True)) if clocks else {}


def _facts_of(trace: Trace, member: Member, range_name: str | None, bars: bool) -> list[RankFacts]:
    """The facts of each rank of a trace: one for each process and GPU that worked."""
    placed = _placed(trace, member)
    bars = bars and len(placed) <= FEW
    ranks = (facts(place, piece.trace, range_name, bars) for piece, place in placed)
    return [rank for rank in ranks if rank is not None]


def _placed(trace: Trace, member: Member) -> list[tuple[Piece, Place]]:
    """Each rank of a trace; a file of one rank has that of the GPU with most of the work."""
    pieces = split(trace)
    if len(pieces) > 1 and member.rank is not None:
        pieces = (max(pieces, key=lambda p: len(p.trace.ops)),)
    return [(piece, _place(piece, number, member)) for number, piece in enumerate(pieces)]


def _place(piece: Piece, number: int, member: Member) -> Place:
    """The rank by its file or the manifest, else by the order of GPUs: ``number`` is the piece's place in the trace."""
    entry = _entry(piece, member)
    if member.rank is not None:
        rank, derived = member.rank, member.derived
    elif entry is not None:
        rank, derived = entry.rank, "manifest"
    else:
        rank, derived = number + min((e.rank for e in member.entries), default=0), BY_ORDER
    place = Place(
        rank=rank,
        derived=derived,
        file=member.path.name,
        device=piece.device,
        pid=piece.pid,
        world_size=piece.trace.origin.world_size,
        zero_utc_ns=piece.trace.origin.zero_utc_ns,
        stray_kernels=piece.stray,
    )
    return place if entry is None else _on_host(place, entry, member.zero)


def _on_host(place: Place, entry: Rank, zero: Offset | None) -> Place:
    """The place with its host and the host's clock, as the manifest records them."""
    place = replace(place, host=f"host{entry.host}")
    if entry.clock_offset_ns is not None:
        place = replace(place, clock_offset_ns=-entry.clock_offset_ns, clock_uncertainty_ns=entry.clock_uncertainty_ns)
    if zero is None:
        return place
    return replace(place, zero_utc_ns=zero.ns, clock_uncertainty_ns=place.clock_uncertainty_ns + zero.uncertainty_ns)


def _entry(piece: Piece, member: Member) -> Rank | None:
    """The manifest's entry of a piece: that of its file, else of its process, else the only one of its GPU."""
    if member.rank is not None:
        return next(iter(member.entries), None)
    of_process = [entry for entry in member.entries if piece.pid is not None and entry.pid == piece.pid]
    of_device = [entry for entry in member.entries if entry.device_index == piece.device]
    return next((entries[0] for entries in (of_process, of_device) if len(entries) == 1), None)


def _unread(failed: list[str]) -> Iterator[Note]:
    if failed:
        yield note("rank-unread", count=len(failed), why=failed[0])
