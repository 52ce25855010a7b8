"""NVTX ranges of one domain, ``moeprof``: the only user of the nvtx package.

Ranges nest as workload/variant > phase > iteration (its number as payload). Attributes are built once, and nothing is
pushed unless a profiler asked for ranges (``enable()``), so a run without a profiler pays one attribute look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

DOMAIN = "moeprof"
MEASURE = "measure"
ITERATION = "iteration"

_state: dict[str, Any] = {"domain": None}


def enable() -> None:
    """Turn ranges on for this process; needs the nvtx package."""
    import nvtx

    _state["domain"] = nvtx.get_domain(DOMAIN)


def enabled() -> bool:
    """Whether ranges are being pushed."""
    return _state["domain"] is not None


@cache
def _attributes(name: str, payload: int | None) -> Any:
    return _state["domain"].get_event_attributes(message=name, payload=payload)


def prepare(name: str, count: int) -> None:
    """Build the attributes of ``count`` numbered ranges now, so that the measured loop builds none."""
    if enabled():
        for number in range(count):
            _attributes(name, number)


@contextmanager
def region(name: str, payload: int | None = None) -> Iterator[None]:
    """A push/pop range around the body; free of cost unless enabled."""
    domain = _state["domain"]
    if domain is None:
        yield
        return
    domain.push_range(_attributes(name, payload))
    try:
        yield
    finally:
        domain.pop_range()
