"""Named baselines: whole captures kept in a folder, with an index of when each was saved and which one is the default.

A capture is copied under a ``.partial`` name and renamed under a lock of the folder, so that two processes take turns and a name
never stands for half a capture. What the folder holds is what there is; the index only adds to it::

    moeprof-baselines/index.json    {"schema_version", "default", "saved": {name: ISO time}}
    moeprof-baselines/NAME/         the capture
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from moeprof.errors import CaptureError, UsageError
from moeprof.storage import manifest
from moeprof.storage.files import PARTIAL, write_whole
from moeprof.storage.json import decode, dumps, loads

FOLDER = Path("moeprof-baselines")
INDEX, LOCK = "index.json", ".lock"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Index:
    """What the folder remembers beside its captures."""

    default: str | None = None
    saved: dict[str, str] = field(default_factory=dict)
    schema_version: int = 1


@dataclass(frozen=True)
class Baseline:
    """A kept capture. ``saved`` and ``created``: ISO 8601, UTC; ``saved`` is None where the index does not know."""

    name: str
    workload: str
    variants: tuple[str, ...]
    created: str
    saved: str | None
    git: str | None
    gpu: str | None
    bytes: int
    default: bool


def save(name: str, capture: Path, folder: Path = FOLDER, force: bool = False) -> Path:
    """Keep a copy of ``capture`` under ``name``; where it is.

    Raises:
        UsageError: the name is none, or is taken and ``force`` is not given.
        CaptureError: it is no capture, or not complete.
    """
    _named(name)
    if not manifest.read(capture).complete:
        raise CaptureError(f"{capture} is not complete", "capture again; a baseline must be whole")
    target = folder / name
    _free(target, force)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{os.getpid()}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)  # of a process of this number that was ended
    try:
        shutil.copytree(capture, partial)
        with _locked(folder):
            _free(target, force)
            _replace(partial, target)
            found = _index(folder)
            _write(folder, replace(found, saved={**found.saved, name: datetime.now(UTC).isoformat(timespec="seconds")}))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def use(name: str | None, folder: Path = FOLDER) -> None:
    """Make a baseline the default, or none with None; raises CaptureError where there is none of that name."""
    if name is not None:
        _existing(name, folder)
    elif not folder.is_dir():
        return
    with _locked(folder):
        _write(folder, replace(_index(folder), default=name))


def remove(name: str, folder: Path = FOLDER) -> None:
    """Remove a baseline, and what was the default with it; raises CaptureError where there is none of that name."""
    gone = _existing(name, folder)
    with _locked(folder):
        partial = folder / f"{name}.{os.getpid()}{PARTIAL}"
        if gone.exists():  # another process may have been first
            gone.rename(partial)
        found = _index(folder)
        left = {key: value for key, value in found.saved.items() if key != name}
        _write(folder, replace(found, saved=left, default=None if found.default == name else found.default))
    shutil.rmtree(partial, ignore_errors=True)


def listed(folder: Path = FOLDER) -> tuple[Baseline, ...]:
    """The baselines of a folder, the oldest capture first; none where there is no folder."""
    index = _index(folder)
    found = [
        _baseline(path.parent, index) for path in folder.glob(f"*/{manifest.FILE}") if path.parent.suffix != PARTIAL
    ]
    return tuple(sorted(found, key=lambda b: (b.created, b.name)))


def default(folder: Path = FOLDER) -> str | None:
    """The name of the default baseline, as it was chosen; None where none was."""
    return _index(folder).default


def resolve(text: str, folder: Path = FOLDER) -> tuple[Path, str]:
    """The capture that a name or a path stands for, and how to call it; a name goes before a path.

    Raises:
        CaptureError: it is neither.
    """
    if NAME.fullmatch(text) and (folder / text / manifest.FILE).is_file():
        return folder / text, f"baseline {text}"
    if Path(text).exists():
        return Path(text), text
    known = ", ".join(b.name for b in listed(folder)) or "none"
    raise CaptureError(f"{text} is neither a baseline in {folder} nor a capture", f"baselines: {known}")


def _named(name: str) -> None:
    if not NAME.fullmatch(name) or name.endswith(PARTIAL):
        raise UsageError(f"{name!r} is no name of a baseline", "use letters, digits, '.', '_' and '-'")


def _free(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise UsageError(
            f"there is a baseline {target.name!r} in {target.parent}", "choose another name, or add --force"
        )


def _existing(name: str, folder: Path) -> Path:
    if not NAME.fullmatch(name) or not (folder / name / manifest.FILE).is_file():
        known = ", ".join(b.name for b in listed(folder)) or "none"
        raise CaptureError(f"there is no baseline {name!r} in {folder}", f"baselines: {known}")
    return folder / name


def _replace(partial: Path, target: Path) -> None:
    """Rename ``partial`` to ``target``; what was there goes once the new one stands."""
    old = partial.with_name(partial.name.removesuffix(PARTIAL) + ".old" + PARTIAL)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _baseline(capture: Path, index: Index) -> Baseline:
    found = manifest.read(capture)
    gpus = found.environment.gpus_before
    return Baseline(
        name=capture.name, workload=found.name, variants=tuple(v.name for v in found.variants), created=found.created,
        saved=index.saved.get(capture.name), git=found.git, gpu=gpus[0].name if gpus else None,
        bytes=sum(p.stat().st_size for p in capture.rglob("*") if p.is_file()), default=capture.name == index.default,
    )  # fmt: skip


def _index(folder: Path) -> Index:
    path = folder / INDEX
    if not path.is_file():
        return Index()
    try:
        return decode(Index, loads(path.read_bytes()))
    except CaptureError as error:
        raise CaptureError(f"{path} is no index: {error}", "remove it; the baselines stay") from error


def _write(folder: Path, index: Index) -> None:
    write_whole(folder / INDEX, dumps(index))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time."""
    with (folder / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
