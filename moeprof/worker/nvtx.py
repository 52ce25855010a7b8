"""Ranges that name what the program is doing: NVTX ranges of one domain, ``moeprof``, or a profiler's own kind.

Ranges nest as workload/variant > phase > iteration (its number as payload). Nothing is pushed unless a profiler asked
for ranges (``enable_nvtx()``, ``enable()``): without one a range costs a look-up. This is the only user of nvtx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

DOMAIN = "moeprof"
MEASURE = "measure"
ITERATION = "iteration"
CLOCK = "clock"  # when it was pushed is known by the host's clock too (profiler.anchors)

Factory = Callable[[str, int | None], AbstractContextManager[Any]]


def _nothing(name: str, payload: int | None) -> AbstractContextManager[Any]:
    return nullcontext()


_state: dict[str, Factory] = {"factory": _nothing}


def enable(factory: Factory) -> None:
    """Use ``factory`` for every ``region`` from now on."""
    _state["factory"] = factory


def enable_nvtx() -> None:
    """Turn NVTX ranges on for this process; each range's attributes are built once."""
    import nvtx

    domain = nvtx.get_domain(DOMAIN)

    @cache
    def attributes(name: str, payload: int | None) -> Any:
        return domain.get_event_attributes(message=name, payload=payload)

    @contextmanager
    def pushed(name: str, payload: int | None) -> Iterator[None]:
        domain.push_range(attributes(name, payload))
        try:
            yield
        finally:
            domain.pop_range()

    enable(pushed)


def disable() -> None:
    """Push no more ranges."""
    _state["factory"] = _nothing


def region(name: str, payload: int | None = None) -> AbstractContextManager[Any]:
    """A range around the body of a ``with``, of the kind that was enabled; nothing if none was."""
    return _state["factory"](name, payload)


def default_range(name: str) -> AbstractContextManager[Any]:
    """An NVTX range of the default domain, as programs push them; nothing where the nvtx package is missing."""
    push = _default_range()
    return nullcontext() if push is None else push(name)


@cache
def _default_range() -> Callable[[str], AbstractContextManager[Any]] | None:
    try:
        import nvtx
    except ImportError:
        return None
    annotate: Callable[[str], AbstractContextManager[Any]] = nvtx.annotate
    return annotate
