"""Ranges: off without a profiler, nested and numbered with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moeprof.worker import nvtx


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    nvtx.disable()


def test_nothing_is_pushed_unless_enabled() -> None:
    pushed: list[tuple[str, int | None]] = []

    @contextmanager
    def factory(name: str, payload: int | None) -> Iterator[None]:
        pushed.append((name, payload))
        yield
        pushed.append((f"/{name}", payload))

    with nvtx.region("a"):
        pass
    assert pushed == []
    nvtx.enable(factory)
    with nvtx.region("a"), nvtx.region("b", 3):
        pass
    assert pushed == [("a", None), ("b", 3), ("/b", 3), ("/a", None)]
    nvtx.disable()
    with nvtx.region("a"):
        pass
    assert len(pushed) == 4


def test_nvtx_ranges_are_popped_when_the_body_fails() -> None:
    pytest.importorskip("nvtx")
    nvtx.enable_nvtx()
    with pytest.raises(ValueError, match="body"), nvtx.region("a", 1):
        raise ValueError("body")
    with nvtx.region("a", 1):
        pass
