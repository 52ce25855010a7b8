"""The planted slow-down that a GPU's verdicts are checked with: the same work, and a wait behind it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import pytest
from paths import ROOT

pytest.importorskip("torch", reason="torch is not installed")

from moeprof.errors import UsageError
from moeprof.worker.built_variant import Session, machine


@pytest.fixture(scope="module")
def planted() -> Any:
    spec = importlib.util.spec_from_file_location("planted_slowdown", ROOT / "scripts" / "planted_slowdown.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_slower_variant_is_proven_and_waits_its_share(planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def waits(wanted_s: float, device: str) -> Callable[[], None]:
        return lambda: waited.append(wanted_s)

    monkeypatch.setattr(planted, "waits", waits)
    monkeypatch.setattr(planted, "seconds", lambda *a, **k: 0.01)
    workload = planted.planted("kv_transfer/overlap", 0.05)
    assert [v.name for v in workload.variants] == ["as_is", "again", "slower"] and workload.baseline == "as_is"
    params = workload.resolve(workload.params("tiny", {"layers": "2", "tokens": "64", "width": "64"}), machine("cpu"))
    for name, expected in (("again", 0), ("slower", 1)):
        assert Session(workload, workload.variant(name), "cpu", params).prove().ok
        assert waited == [0.05 * 0.01] * expected, "a wait behind each run"


def test_a_wait_takes_as_long_as_it_is_told(planted: Any) -> None:
    wait, start = planted.waits(0.02, "cpu"), time.perf_counter()
    wait()
    assert time.perf_counter() - start >= 0.02


def test_an_unknown_variant_is_named(planted: Any) -> None:
    with pytest.raises(UsageError, match="turbo"):
        planted.planted("kv_transfer/turbo", 0.05)
