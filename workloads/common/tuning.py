"""Time several configurations once, choose the fastest, and cache the choice for a GPU, library version and shape.

Without a cache that can be written, each process chooses again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from moeprof.errors import WorkloadError
from moeprof.storage import cache

CACHE = "tuned"


def fastest(
    key: Sequence[Any], configurations: Sequence[dict[str, Any]], seconds: Callable[[dict[str, Any]], float]
) -> dict[str, Any]:
    """The configuration of least ``seconds``, cached under ``key``. One that raises does not fit this GPU and is left out.

    Raises:
        WorkloadError: no configuration works; the message contains the last reason.
    """
    name = cache.digest(json.dumps([*key, list(configurations)], sort_keys=True, default=str))
    cached = cache.read(CACHE, name)
    if cached in configurations:
        return dict(cached)
    times: list[tuple[float, int, dict[str, Any]]] = []
    reason = "there is none"
    for configuration in configurations:
        try:
            times.append((seconds(configuration), len(times), configuration))
        except Exception as error:  # a compiler or driver may refuse in any way: out of shared memory, of registers
            reason = _reason(error)
    if not times:
        raise WorkloadError(f"no kernel configuration works on this GPU ({reason})", "try other sizes, multiples of 64")
    best = min(times)[2]
    cache.write(CACHE, name, best)
    return best


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"
