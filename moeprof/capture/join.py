"""One capture of the parts that its hosts kept, by reading them: a folder for each host, checked before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from moeprof.errors import CaptureError, MoeprofError
from moeprof.notes import note
from moeprof.storage import manifest as manifests
from moeprof.storage.capture_folder import LOGS, sha256
from moeprof.storage.files import partial_of, whole_folder, write_whole
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Manifest, Rank, VariantRecord

COPIED = (f"{LOGS}/*.log", "*/trace*.nsys-rep")  # beside the files of the manifest: logs, and what --keep-raw left
Parts = dict[Path, Manifest]  # by folder, in the order of their hosts


def join(folders: Sequence[Path], final: Path) -> Manifest:
    """Make the capture ``final`` of all parts; a folder of that name is replaced.

    Raises:
        CaptureError: a part is missing, twice there, of another capture, or its files are not as it says.
    """
    parts = read_parts(folders)
    whole = joined(list(parts.values()))
    if partial_of(final) in parts:
        raise CaptureError(f"{partial_of(final)} is one of the parts", "choose another -o")
    files = [(folder, name) for folder in parts for name in sorted(files_of(folder, parts[folder]))]
    with whole_folder(final) as target:
        for folder, name in files:
            path = target / name
            if path.exists():  # a log of the same name on two hosts
                path = path.with_name(f"{path.stem}.host{parts[folder].hosts[0]}{path.suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, path)
        write_whole(target / manifests.FILE, dumps(whole))
    return whole


def belongs(folder: Path, capture_id: str) -> bool:
    """Whether there is a part of that capture in the folder."""
    try:
        return manifests.read(folder).capture_id == capture_id
    except MoeprofError:
        return False


def read_parts(folders: Iterable[Path]) -> Parts:
    """The manifests of all parts.

    Raises:
        CaptureError: a part is missing, twice there, of another capture, or no part.
    """
    read = sorted(((manifests.read(folder), folder) for folder in folders), key=lambda part: part[0].hosts)
    by_host: dict[int, Path] = {}
    for manifest, folder in read:
        if not manifest.capture_id:
            raise CaptureError(f"{folder} is no part of a capture of several hosts", "it is whole as it is")
        if manifest.capture_id != read[0][0].capture_id:
            different = f"{folder} and {read[0][1]} are parts of different captures"
            raise CaptureError(different, "join the parts of one capture")
        for host in manifest.hosts:
            if host in by_host:
                twice = f"{by_host[host]} and {folder} both are the part of host {host}"
                raise CaptureError(twice, "name each part once")
            by_host[host] = folder
    missing = sorted(set(range(max((manifest.host_count for manifest, _ in read), default=1))) - by_host.keys())
    if missing:
        hint = f"name it too: the folder that ends with .host{missing[0]}"
        raise CaptureError(f"the part of host {', '.join(map(str, missing))} is missing", hint)
    return {folder: manifest for manifest, folder in read}


def joined(parts: Sequence[Manifest]) -> Manifest:
    """The manifest of the whole, of those of its parts in the order of their hosts. The first is rank 0's."""
    variants = tuple(_variant(record, parts[1:]) for record in parts[0].variants)
    notes = [n for n in parts[0].notes if n.id != "host-missing"]
    notes += [n for part in parts[1:] for n in part.notes if n.id in ("redacted", "no-trace") and n not in notes]
    notes += [note("no-clock", variant=v.name, hosts=hosts) for v in variants if (hosts := _unclocked(v))]
    return replace(
        parts[0],
        variants=variants,
        notes=tuple(notes),
        hosts=tuple(host for part in parts for host in part.hosts),
        complete=all(part.complete for part in parts),
    )


def _variant(record: VariantRecord, other_parts: Iterable[Manifest]) -> VariantRecord:
    """A variant as rank 0's part has it, with the traces of all hosts. A clock is known if the zeros of all traces are."""
    records = [(part.hosts, variant) for part in other_parts if (variant := part.variant(record.name)) is not None]
    traces = (*record.parts, *(trace for _, variant_ in records for trace in variant_.parts))
    known = all(trace.zero_utc_ns is not None for trace in traces if trace.kind == "trace")
    theirs = {rank.rank: rank for hosts, variant_ in records for rank in variant_.ranks if rank.host in hosts}
    return replace(
        record, parts=traces, ranks=tuple(_rank(rank, theirs.get(rank.rank), known) for rank in record.ranks)
    )


def _rank(rank: Rank, theirs: Rank | None, known: bool) -> Rank:
    """A rank as rank 0's part has it, with what its own host's part has of its clock and its trace."""
    if theirs is None:
        return rank if not rank.host else replace(rank, clock_offset_ns=None)
    return replace(
        rank, clock_offset_ns=theirs.clock_offset_ns if known else None, clock_drift_ns=theirs.clock_drift_ns,
        clock_uncertainty_ns=theirs.clock_uncertainty_ns, reason=rank.reason or theirs.reason,
        status=theirs.status if theirs.status == "failed" else rank.status,
    )  # fmt: skip


def _unclocked(record: VariantRecord) -> str:
    """The hosts whose clock is not known, though they left traces."""
    hosts = {rank.host for rank in record.ranks if rank.clock_offset_ns is None}
    return ", ".join(map(str, sorted(hosts & {part.host for part in record.parts})))


def files_of(folder: Path, manifest: Manifest) -> Iterator[str]:
    """The files of a part, by their names in it.

    Raises:
        CaptureError: one is not there, is or lies behind a link, or is not as the manifest says.
    """
    sums = {part.file: part.sha256 for record in manifest.variants for part in record.parts}
    copied = [path.relative_to(folder).as_posix() for pattern in COPIED for path in folder.glob(pattern)]
    for name in (*sums, *copied):
        path = folder / name
        if path.resolve() != Path(f"{folder.resolve()}/{name}"):
            raise CaptureError(f"{folder} names a file outside of it: {name}", "capture again")
        if not path.is_file():
            raise CaptureError(f"{path} is missing", "copy the part again")
        if name in sums and sha256(path) != sums[name]:
            raise CaptureError(f"{path} is not what the manifest says: its SHA-256 differs", "copy the part again")
        yield name
