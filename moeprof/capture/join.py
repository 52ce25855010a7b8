"""One capture of the parts that its hosts kept, by reading them: a folder for each host, checked before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from moeprof.errors import CaptureError, MoeprofError
from moeprof.notes import note
from moeprof.storage import manifest as manifests
from moeprof.storage.capture_folder import LOGS, Store, sha256
from moeprof.storage.manifest import Manifest, Rank, VariantRecord

RAW = "*/trace*.nsys-rep"  # what --keep-raw left


@dataclass(frozen=True)
class HostFolder:
    """The part of a capture that one or more hosts kept."""

    folder: Path
    manifest: Manifest


def join(folders: Sequence[Path], final: Path) -> Path:
    """Make the capture ``final`` of all parts; a folder of that name is replaced.

    Raises:
        CaptureError: a part is missing, twice there, of another capture, or its files are not as it says.
    """
    parts = read_parts(folders)
    store = Store(final, joined([part.manifest for part in parts]))
    if store.folder in folders:
        raise CaptureError(f"{store.folder} is one of the parts", "choose another -o")
    files = [(part, file) for part in parts for file in sorted(files_of(part))]
    store.open()
    try:
        for part, file in files:
            _copy(part, file, store.folder)
        store.drop_scratch()
        return store.close()
    except BaseException:
        store.remove()
        raise


def belongs(folder: Path, capture_id: str) -> bool:
    """Whether there is a part of that capture in the folder."""
    try:
        return manifests.read(folder).capture_id == capture_id
    except MoeprofError:
        return False


def read_parts(folders: Iterable[Path]) -> list[HostFolder]:
    """The parts, in the order of their hosts.

    Raises:
        CaptureError: a part is missing, twice there, of another capture, or no part.
    """
    parts = sorted((HostFolder(folder, manifests.read(folder)) for folder in folders), key=lambda p: p.manifest.hosts)
    for part in parts:
        if not part.manifest.capture_id:
            raise CaptureError(f"{part.folder} is no part of a capture of several hosts", "it is whole as it is")
        if part.manifest.capture_id != parts[0].manifest.capture_id:
            raise CaptureError(
                f"{part.folder} and {parts[0].folder} are parts of different captures", "join the parts of one capture"
            )
    by_host: dict[int, Path] = {}
    for part in parts:
        for host in part.manifest.hosts:
            if host in by_host:
                raise CaptureError(
                    f"{by_host[host]} and {part.folder} both are the part of host {host}", "name each part once"
                )
            by_host[host] = part.folder
    missing = sorted(set(range(max((p.manifest.host_count for p in parts), default=1))) - by_host.keys())
    if missing:
        hosts = ", ".join(map(str, missing))
        raise CaptureError(
            f"the part of host {hosts} is missing", f"name it too: the folder that ends with .host{missing[0]}"
        )
    return parts


def joined(parts: Sequence[Manifest]) -> Manifest:
    """The manifest of the whole, of those of its parts in the order of their hosts. The first is rank 0's."""
    whole = parts[0]
    variants = tuple(_variant(record, parts[1:]) for record in whole.variants)
    unclocked = [note("no-clock", variant=v.name, hosts=_unclocked(v)) for v in variants if _unclocked(v)]
    kept = [n for n in whole.notes if n.id not in ("no-clock", "host-missing")]
    for part in parts[1:]:
        kept += [n for n in part.notes if n.id == "redacted"]
    hosts = tuple(host for part in parts for host in part.hosts)
    complete = all(part.complete for part in parts)
    return replace(whole, variants=variants, notes=(*kept, *unclocked), hosts=hosts, complete=complete)


def _variant(record: VariantRecord, others: Iterable[Manifest]) -> VariantRecord:
    records = [found for part in others if (found := part.variant(record.name)) is not None]
    traces = (*record.parts, *(part for other in records for part in other.parts))
    known = all(trace.zero_utc_ns is not None for trace in traces if trace.kind == "trace")
    by_rank = {rank.rank: rank for other in records for rank in other.ranks}
    ranks = tuple(_rank(rank, by_rank.get(rank.rank), known) for rank in record.ranks)
    return replace(record, parts=traces, ranks=ranks)


def _rank(rank: Rank, kept: Rank | None, known: bool) -> Rank:
    """A rank as rank 0's part has it, with what its own host's part has of its clock and its trace."""
    if kept is None:
        return rank if not rank.host else replace(rank, clock_offset_ns=None)
    failed = kept if kept.status == "failed" else rank
    return replace(
        rank, clock_offset_ns=kept.clock_offset_ns if known else None, clock_uncertainty_ns=kept.clock_uncertainty_ns,
        clock_drift_ns=kept.clock_drift_ns, status=failed.status, reason=rank.reason or failed.reason,
    )  # fmt: skip


def _unclocked(record: VariantRecord) -> str:
    """The hosts whose clock is not known, though they left traces."""
    hosts = {rank.host for rank in record.ranks if rank.clock_offset_ns is None}
    return ", ".join(map(str, sorted(hosts & {part.host for part in record.parts})))


def files_of(part: HostFolder) -> Iterator[str]:
    """The files of a part, by their names in it.

    Raises:
        CaptureError: one is not in the folder, is a link, or is not as the manifest says.
    """
    for record in part.manifest.variants:
        for file in record.parts:
            path = _inside(part.folder, file.file)
            if sha256(path) != file.sha256:
                raise CaptureError(f"{path} is not what the manifest says: its SHA-256 differs", "copy the part again")
            yield file.file
    for path in (*part.folder.glob(f"{LOGS}/*.log"), *part.folder.glob(RAW)):
        name = path.relative_to(part.folder).as_posix()
        _inside(part.folder, name)
        yield name


def _inside(folder: Path, name: str) -> Path:
    """The path of a file of a part.

    Raises:
        CaptureError: it leaves the folder, a link is on the way, or it is not there.
    """
    pure, path = PurePosixPath(name), folder / name
    steps = [folder.joinpath(*pure.parts[: count + 1]) for count in range(len(pure.parts))]
    if pure.is_absolute() or ".." in pure.parts or any(step.is_symlink() for step in steps):
        raise CaptureError(f"{folder} names a file outside of it: {name}", "capture again")
    if not path.is_file():
        raise CaptureError(f"{path} is missing", "copy the part again")
    return path


def _copy(part: HostFolder, name: str, target: Path) -> None:
    path = target / name
    if path.exists():  # a log of the same name on two hosts
        path = path.with_name(f"{path.stem}.host{part.manifest.hosts[0]}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(part.folder / name, path)
