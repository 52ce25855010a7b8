"""Named baselines: complete captures in a folder, with an index of when each was saved and which one is the default.

A capture is copied under a ``.partial`` name and renamed under a lock of the folder. Two processes take turns, and a name never
stands for half a capture. The folders are the truth; the index only adds dates and the default::

    moeprof-baselines/index.json    {"schema_version", "default", "saved": {name: ISO time}}
    moeprof-baselines/NAME/         the capture
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from moeprof.errors import CaptureError, UsageError, choices
from moeprof.storage import manifest
from moeprof.storage.files import PARTIAL, locked, replace_folder, write_whole
from moeprof.storage.json import decode, dumps, loads

FOLDER = Path("moeprof-baselines")
INDEX, LOCK = "index.json", ".lock"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Index:
    """What the folder contains beside its captures."""

    default: str | None = None
    saved: dict[str, str] = field(default_factory=dict)
    schema_version: int = 1


@dataclass(frozen=True)
class Baseline:
    """A saved capture. ``saved`` and ``created``: ISO 8601, UTC; ``saved`` is None if the index lacks it."""

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
    """Save a copy of ``capture`` under ``name``; return its folder.

    Raises:
        UsageError: the name is not valid, or is taken and ``force`` is not given.
        CaptureError: ``capture`` is not a capture, or is not complete.
    """
    _check_name(name)
    if not manifest.read(capture).complete:
        raise CaptureError(f"{capture} is not complete", "capture again; a baseline must be complete")
    target = folder / name
    _refuse_taken(target, force)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{os.getpid()}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)  # left by a process of the same id that was killed
    try:
        shutil.copytree(capture, partial)
        with locked(folder / LOCK):
            _refuse_taken(target, force)
            replace_folder(partial, target)
            index = _index(folder)
            _write(folder, replace(index, saved={**index.saved, name: datetime.now(UTC).isoformat(timespec="seconds")}))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def use(name: str | None, folder: Path = FOLDER) -> None:
    """Make a baseline the default; None: no default. Raises CaptureError if there is no baseline of that name."""
    if name is not None:
        _existing(name, folder)
    elif not folder.is_dir():
        return
    with locked(folder / LOCK):
        _write(folder, replace(_index(folder), default=name))


def remove(name: str, folder: Path = FOLDER) -> None:
    """Remove a baseline, which then is no longer the default; raises CaptureError if there is none of that name."""
    baseline = _existing(name, folder)
    with locked(folder / LOCK):
        partial = folder / f"{name}.{os.getpid()}{PARTIAL}"
        if baseline.exists():  # another process may have removed it
            baseline.rename(partial)
        index = _index(folder)
        saved = {key: value for key, value in index.saved.items() if key != name}
        _write(folder, replace(index, saved=saved, default=None if index.default == name else index.default))
    shutil.rmtree(partial, ignore_errors=True)


def listed(folder: Path = FOLDER) -> tuple[Baseline, ...]:
    """The baselines of a folder, the oldest capture first; empty if there is no folder."""
    index = _index(folder)
    captures = (path.parent for path in folder.glob(f"*/{manifest.FILE}") if path.parent.suffix != PARTIAL)
    return tuple(sorted((_baseline(path, index) for path in captures), key=lambda b: (b.created, b.name)))


def default(folder: Path = FOLDER) -> str | None:
    """The name of the default baseline; None if none was chosen."""
    return _index(folder).default


def resolve(text: str, folder: Path = FOLDER) -> tuple[Path, str]:
    """The capture of a baseline's name or of a path, and what to call it; a name is looked up before a path.

    Raises:
        CaptureError: ``text`` is neither.
    """
    if NAME.fullmatch(text) and (folder / text / manifest.FILE).is_file():
        return folder / text, f"baseline {text}"
    if Path(text).exists():
        return Path(text), text
    known = ", ".join(b.name for b in listed(folder)) or "none"
    raise CaptureError(f"{text} is neither a baseline in {folder} nor a capture", f"baselines: {known}")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name.endswith(PARTIAL):
        raise UsageError(f"{name!r} is not a valid name of a baseline", "use letters, digits, '.', '_' and '-'")


def _refuse_taken(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise UsageError(
            f"there is a baseline {target.name!r} in {target.parent}", "choose another name, or add --force"
        )


def _existing(name: str, folder: Path) -> Path:
    if not NAME.fullmatch(name) or not (folder / name / manifest.FILE).is_file():
        hint = choices(name, (b.name for b in listed(folder)), "baselines")
        raise CaptureError(f"there is no baseline {name!r} in {folder}", hint)
    return folder / name


def _baseline(capture: Path, index: Index) -> Baseline:
    recorded = manifest.read(capture)
    gpus = recorded.environment.gpus_before
    return Baseline(
        name=capture.name, workload=recorded.name, variants=tuple(v.name for v in recorded.variants), created=recorded.created,
        saved=index.saved.get(capture.name), git=recorded.git, gpu=gpus[0].name if gpus else None,
        bytes=sum(p.stat().st_size for p in capture.rglob("*") if p.is_file()), default=capture.name == index.default,
    )  # fmt: skip


def _index(folder: Path) -> Index:
    path = folder / INDEX
    if not path.is_file():
        return Index()
    try:
        return decode(Index, loads(path.read_bytes()))
    except CaptureError as error:
        raise CaptureError(f"{path} is not an index: {error}", "remove it; the baselines are not affected") from error


def _write(folder: Path, index: Index) -> None:
    write_whole(folder / INDEX, dumps(index))
