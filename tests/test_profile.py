"""How many processes set up side by side: cores first, then the GPU's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from moeprof.capture import profile
from moeprof.capture.plan import Request
from moeprof.capture.progress import Silent
from moeprof.capture.store import Store
from moeprof.manifest import Environment, Gpu, Manifest

GB = 10**9


@pytest.mark.parametrize(
    ("cores", "memory", "used", "each", "slots"),
    [
        (16, 80 * GB, 0, 4 * GB, 6),
        (2, 80 * GB, 0, 4 * GB, 1),
        (16, 8 * GB, 0, 2 * GB, 3),
        (16, 8 * GB, 4 * GB, 2 * GB, 1),
        (16, 8 * GB, 0, 20 * GB, 1),
        (16, 8 * GB, 0, 0, 6),
    ],
)
def test_slots(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, used: int, each: int, slots: int) -> None:
    monkeypatch.setattr(profile.os, "cpu_count", lambda: cores)
    environment = Environment(
        "0", "3", "Linux", "cpu", cores, gpus_before=(Gpu(0, "g", memory_bytes=memory, memory_used_bytes=used),)
    )
    store = Store(Path("x"), Manifest(1, "workload", "w", "2026", (), "cuda", environment))
    assert profile.Profile(Request(), store, Silent(), [], each).slots(6) == slots
