"""The same work by its output: equal files, equal values, and every planted fault."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.errors import WorkloadError
from moeprof.worker.compare_outputs import compare


@pytest.fixture
def result() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((64, 16))


def saved(tmp_path: Path, name: str, value: Any) -> Path:
    path = tmp_path / name
    if isinstance(value, np.ndarray):
        np.save(path, value)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_equal_bytes_are_equal(tmp_path: Path, result: np.ndarray) -> None:
    proof = compare(saved(tmp_path, "a.npy", result), saved(tmp_path, "b.npy", result), None)
    assert proof.ok and proof.error == 0.0 and "all equal" in proof.checked
    proof = compare(saved(tmp_path, "a.bin2", b"abc"), saved(tmp_path, "b.bin2", b"abd"), None)
    assert not proof.ok and "differs from byte 2 on" in proof.reason
    assert not compare(saved(tmp_path, "a.txt", b""), saved(tmp_path, "b.txt", b""), None).ok, "nothing proves nothing"


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a row of zeros": lambda x: np.where(np.arange(64)[:, None] == 5, 0, x),
    "two rows exchanged": lambda x: x[[1, 0, *range(2, 64)]],
    "one row 5 % off": lambda x: np.where(np.arange(64)[:, None] == 63, 1.05 * x, x),
    "a row too few": lambda x: x[:-1],
    "not a number": lambda x: np.where(x == x.max(), np.nan, x),
    "infinite": lambda x: np.where(x == x.max(), np.inf, x),
    "transposed": lambda x: x.T.copy(),
    "all zeros": np.zeros_like,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_fails(tmp_path: Path, result: np.ndarray, fault: str) -> None:
    right = result + 1e-4 * np.random.default_rng(1).standard_normal(result.shape)
    reference = saved(tmp_path, "a.npy", result)
    assert compare(reference, saved(tmp_path, "b.npy", right), 1e-2).ok
    proof = compare(reference, saved(tmp_path, "b.npy", FAULTS[fault](right)), 1e-2)
    assert not proof.ok and proof.reason


def test_tokens_are_right_or_wrong(tmp_path: Path) -> None:
    tokens = np.arange(10_000)
    wrong = np.where(tokens == 7_000, 7_001, tokens)
    proof = compare(saved(tmp_path, "a.npy", tokens), saved(tmp_path, "b.npy", wrong), 0.5)
    assert not proof.ok and "1 of 10,000 whole numbers differ" in proof.reason


def test_json_is_compared_value_by_value(tmp_path: Path) -> None:
    told = {"loss": 1.0, "tokens": [1, 2, 3], "text": "a", "nested": [{"x": 2.0}]}
    reference = saved(tmp_path, "a.json", told)
    assert compare(reference, saved(tmp_path, "b.json", told | {"loss": 1.0001}), 1e-3).ok
    for change in (
        {"loss": 1.01},
        {"tokens": [1, 2, 4]},
        {"text": "b"},
        {"more": 1},
        {"nested": [{"x": 2.5}]},
        {"loss": "1.0"},
    ):
        assert not compare(reference, saved(tmp_path, "b.json", told | change), 1e-3).ok, change


def test_tensors_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    whole = torch.randn(8, 8)
    torch.save({"y": whole.bfloat16(), "ids": torch.arange(4)}, tmp_path / "a.pt")
    torch.save({"y": whole, "ids": torch.arange(4)}, tmp_path / "b.pt")
    assert compare(tmp_path / "a.pt", tmp_path / "b.pt", 2e-2).ok
    assert not compare(tmp_path / "a.pt", tmp_path / "b.pt", None).ok


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    broken, other = saved(tmp_path, "a.npy", b"no"), saved(tmp_path, "b.npy", b"nothing")
    with pytest.raises(WorkloadError, match=r"a\.npy cannot be read"):
        compare(broken, other, 0.1)
    with pytest.raises(WorkloadError, match="unknown format"):
        compare(saved(tmp_path, "a.log", b"1"), saved(tmp_path, "b.log", b"2"), 0.1)
    command = [
        sys.executable,
        "-P",
        "-m",
        "moeprof.worker.compare_outputs",
        str(broken),
        str(other),
        "--tolerance",
        "0.1",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 5 and len(ended.stderr.splitlines()) == 1
