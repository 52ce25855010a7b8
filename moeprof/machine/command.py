"""One process to run, as data: the same request and tools give the same commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """One process: its argument list, what it adds to the environment, the file it must leave, how long it may take, and the folder
    that it runs in (None: this process's)."""

    argv: tuple[str, ...]
    produces: Path | None
    timeout_s: int
    env: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def __str__(self) -> str:
        return shlex.join([*(f"{k}={v}" for k, v in self.env.items()), *self.argv])
