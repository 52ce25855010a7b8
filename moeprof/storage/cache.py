"""Results that are expensive to obtain and may be lost: ``$XDG_CACHE_HOME/moeprof/KIND``, by default in ``~/.cache``.

The folders may be deleted at any time. A cache that cannot be read or written costs time and is never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from moeprof.storage.files import write_whole

DIGEST_LENGTH = 24  # hexadecimal digits: 96 bits


def folder(kind: str) -> Path:
    """The folder of one kind of result; it need not exist."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "moeprof" / kind


def digest(*parts: str) -> str:
    """A name that identifies ``parts``: 24 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]


def read(kind: str, name: str) -> Any:
    """The JSON value cached under ``name``; None if there is none, or if the file is damaged."""
    with suppress(OSError, ValueError):
        return json.loads(_path(kind, name).read_text(encoding="utf-8"))
    return None


def write(kind: str, name: str, value: Any) -> None:
    """Cache a JSON value under ``name``, whole or not at all."""
    with suppress(OSError):
        path = _path(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(value))


def _path(kind: str, name: str) -> Path:
    return folder(kind) / f"{name}.json"
