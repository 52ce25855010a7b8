"""Choose the fastest of several ways by timing them once, and remember the choice a GPU, library version and shape.

The memory is a folder of small JSON files, ``$XDG_CACHE_HOME/moeprof/tuned`` (``~/.cache`` by default); it may be deleted at
any time. Where it cannot be written, each process chooses for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moeprof.errors import WorkloadError
from moeprof.storage.files import write_whole


def fastest(
    key: Sequence[Any], ways: Sequence[dict[str, Any]], seconds: Callable[[dict[str, Any]], float]
) -> dict[str, Any]:
    """The way of least ``seconds``, remembered under ``key``; a way that raises does not fit this GPU and is left out.

    Raises:
        WorkloadError: no way works; it names the last reason.
    """
    path = _path([*key, list(ways)])
    known = _read(path)
    if known in ways:
        return dict(known)
    times: list[tuple[float, int, dict[str, Any]]] = []
    reason = "there is none"
    for way in ways:
        try:
            times.append((seconds(way), len(times), way))
        except Exception as error:  # a compiler or driver may refuse in any way: out of shared memory, of registers
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
    if not times:
        raise WorkloadError(f"no kernel configuration works on this GPU ({reason})", "try other sizes, multiples of 64")
    best = min(times)[2]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(best))
    return best


def _path(key: Sequence[Any]) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return home / "moeprof" / "tuned" / f"{digest}.json"


def _read(path: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None
