"""The capture folder: its name, its manifest, its parts. A file or folder has its final name only when it is complete."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from moeprof.errors import UsageError
from moeprof.notes import Note
from moeprof.storage import manifest
from moeprof.storage.files import PARTIAL, partial_of, replace_folder, write_whole
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Manifest, Part, VariantRecord

OUTPUT = Path("moeprof-out")
LOGS, SCRATCH = "logs", "scratch"


@dataclass
class Store:
    """A capture being written under ``final``.partial; every change of the manifest is on disk when the call returns."""

    final: Path
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """Where it is written until it is whole."""
        return partial_of(self.final)

    @property
    def scratch(self) -> Path:
        """The folder of the tools' raw files, which is removed at the end."""
        return self.folder / SCRATCH

    def log(self, variant: str, tool: str) -> Path:
        """Where a process of that variant writes what it prints."""
        return self.folder / LOGS / f"{variant}-{tool}.log"

    def open(self) -> None:
        """Make the folders. ``choose`` has allowed to remove what an earlier, interrupted capture left under the same name."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in (LOGS, SCRATCH):
            (self.folder / name).mkdir(parents=True)
        self.save()

    def save(self) -> None:
        """Write the manifest, whole or not at all."""
        target = self.folder / manifest.FILE
        write_whole(target, dumps(self.manifest))

    def update(self, **changes: object) -> None:
        """Change fields of the manifest."""
        self.manifest = replace(self.manifest, **changes)  # type: ignore[arg-type]
        self.save()

    def note(self, *notes: Note) -> None:
        """Add new notes."""
        self.update(notes=self.manifest.notes + tuple(n for n in notes if n not in self.manifest.notes))

    def record(self, name: str, **changes: object) -> None:
        """Change fields of one variant's record."""
        variants = tuple(replace(v, **changes) if v.name == name else v for v in self.manifest.variants)  # type: ignore[arg-type]
        self.update(variants=variants)

    def variant(self, name: str) -> VariantRecord:
        """The record of a variant that the manifest has."""
        return next(v for v in self.manifest.variants if v.name == name)

    def keep(self, name: str, partial: Path, part: Part) -> None:
        """Make a validated file a part: rename it to its final name, then add it to the manifest."""
        final = self.folder / part.file
        partial.replace(final)
        done = replace(part, sha256=sha256(final), bytes=final.stat().st_size)
        self.record(name, parts=(*self.variant(name).parts, done))

    def partial(self, file: str) -> Path:
        """Where a part is written until it is validated."""
        path = partial_of(self.folder / file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def drop_scratch(self) -> None:
        """Remove raw files and unfinished parts."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        for left in self.folder.rglob("*" + PARTIAL):
            left.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: nothing useful was captured."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> Path:
        """Mark the capture complete and rename it to its final name."""
        self.update(complete=True)
        return replace_folder(self.folder, self.final)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def numbered(name: str) -> Path:
    """The folder of the next free number: moeprof-out/NAME-001, then -002; an unfinished one has taken its number too."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)({re.escape(PARTIAL)})?")
    taken = (int(match[1]) for path in OUTPUT.glob(f"{name}-*") if (match := pattern.fullmatch(path.name)))
    return OUTPUT / f"{name}-{max(taken, default=0) + 1:03d}"


def refuse_existing(output: Path, force: bool) -> None:
    """Nothing is overwritten unasked.

    Raises:
        UsageError: ``output`` exists and ``force`` is not given.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists", "choose another -o, or add --force")


def choose(name: str, output: Path | None, force: bool) -> Path:
    """The final folder of a capture: ``output`` as given, or the next free number.

    Raises:
        UsageError: ``output`` or its ``.partial`` exists and ``force`` is not given, or ``output`` is not a capture.
    """
    if output is None:
        return numbered(name)
    refuse_existing(output, force)
    partial = partial_of(output)
    if partial.exists() and not force:
        hint = f"show it: moeprof report {partial}; choose another -o, or add --force to drop it"
        raise UsageError(f"{partial} holds what an earlier capture finished", hint)
    if output.exists() and any(output.iterdir()) and not (output / manifest.FILE).is_file():
        raise UsageError(f"{output} is not a capture: it is not replaced", "choose another -o")
    return output


def newest(folder: Path) -> Path | None:
    """The capture in ``folder`` that was finished last; None if there is none."""
    captures = [p.parent for p in folder.glob(f"*/{manifest.FILE}") if not p.parent.name.endswith(PARTIAL)]
    return max(captures, key=lambda p: (p / manifest.FILE).stat().st_mtime_ns, default=None)
