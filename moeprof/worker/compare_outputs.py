"""Whether two files contain the same result: ``python -P -m moeprof.worker.compare_outputs A B [--tolerance X]``.

Prints one ``Proof`` as JSON. Integers, booleans and texts must be equal at any tolerance, since a token is right or wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from moeprof.errors import ExitCode, MoeprofError, WorkloadError
from moeprof.storage.json import dumps
from moeprof.workload.model import Proof

TORCH, NUMPY = (".pt", ".pth", ".bin"), (".npy", ".npz")
SAFETENSORS, JSON, LINES = ".safetensors", ".json", ".jsonl"
Part = tuple[str, Any]  # a name and an array of numpy, or a plain value


def compare(reference: Path, candidate: Path, tolerance: float | None) -> Proof:
    """The proof that ``candidate`` equals ``reference``.

    ``error`` is the worst relative error of a row (the last axis of an array): |a - b| / max(|a|, |a| of the median row), so that a
    single wrong or missing row fails whatever the size of the array.

    Args:
        tolerance: None: equal byte by byte, or else value by value where the format has values.

    Raises:
        WorkloadError: a file cannot be read, or a tolerance is given for a format without numbers.
    """
    if reference.read_bytes() == candidate.read_bytes():
        size = reference.stat().st_size
        if not size:
            return Proof(False, "nothing", None, 0.0, "both files are empty")
        return Proof(True, f"{candidate.name}: {size:,} bytes, all equal", 0.0, tolerance or 0.0)
    suffix = reference.suffix.lower()
    if suffix not in (*TORCH, *NUMPY, SAFETENSORS, JSON, LINES):
        if tolerance is not None:
            raise WorkloadError(f"a tolerance needs numbers, and {reference.name} has an unknown format", FORMATS)
        return Proof(False, f"{candidate.name}, byte by byte", None, 0.0, _first_difference(reference, candidate))
    proof = _values(list(parts(reference)), list(parts(candidate)), tolerance or 0.0)
    return replace(proof, checked=f"{candidate.name}: {proof.checked}")


FORMATS = "write .npy, .npz, .pt, .safetensors, .json or .jsonl"


def parts(path: Path) -> Iterator[Part]:
    """The values of a file by name.

    Raises:
        WorkloadError: it cannot be read.
    """
    try:
        yield from _flat("value", _loaded(path))
    except (OSError, ValueError, RuntimeError, EOFError, ImportError) as error:
        text = str(error).strip() or type(error).__name__
        raise WorkloadError(f"{path.name} cannot be read: {text.splitlines()[0][:200]}", FORMATS) from error


def _loaded(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix in NUMPY:
        import numpy as np

        loaded = np.load(path, allow_pickle=False)
        return {name: loaded[name] for name in loaded.files} if suffix == ".npz" else loaded
    if suffix in TORCH:
        import pickle

        import torch

        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError("it contains more than tensors and plain values") from error
    if suffix == SAFETENSORS:
        from safetensors.torch import load_file

        return load_file(path)
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()] if suffix == LINES else json.loads(text)


def _flat(name: str, value: Any) -> Iterator[Part]:
    """Nested values, each under its path; lists of numbers as one array."""
    import numpy as np

    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        yield name, tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()
    elif isinstance(value, dict):
        yield f"{name}, keys", tuple(sorted(map(str, value)))
        for key in sorted(value, key=str):
            yield from _flat(f"{name}: {key}", value[key])
    elif isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value):
            yield name, np.asarray(value)
            return
        yield f"{name}, length", len(value)
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
    elif isinstance(value, float):
        yield name, np.asarray(value)
    else:
        yield name, value


def _values(reference: list[Part], candidate: list[Part], tolerance: float) -> Proof:
    import numpy as np

    worst, numbers = 0.0, 0
    for index in range(max(len(reference), len(candidate))):
        sides = [side[index] if index < len(side) else ("nothing", None) for side in (reference, candidate)]
        (name, expected), (candidate_name, actual) = sides
        if name != candidate_name:
            return _wrong(tolerance, None, f"{name} in one, {candidate_name} in the other")
        if not isinstance(expected, np.ndarray) or not isinstance(actual, np.ndarray):
            if type(expected) is not type(actual) or expected != actual:
                return _wrong(tolerance, None, f"{name}: {_short(expected)} and {_short(actual)}")
            continue
        if expected.shape != actual.shape:
            return _wrong(tolerance, None, f"{name}: shapes {list(expected.shape)} and {list(actual.shape)}")
        numbers += expected.size
        if not (np.issubdtype(expected.dtype, np.inexact) or np.issubdtype(actual.dtype, np.inexact)):
            unequal = int((expected != actual).sum())
            if unequal:
                return _wrong(tolerance, None, f"{name}: {unequal:,} of {expected.size:,} whole numbers differ")
            continue
        error = _error(expected, actual)
        worst = max(worst, error)
        if not error <= tolerance:
            return _wrong(tolerance, error, f"{name}: a row is off by {error:.2g}, {tolerance:g} is allowed")
    if not reference:
        return _wrong(tolerance, None, "there is nothing to compare")
    return Proof(True, f"{len(reference):,} values, {numbers:,} numbers", worst, tolerance)


def _error(expected: Any, actual: Any) -> float:
    """The worst relative error of a row; infinite where one side alone is not finite."""
    import numpy as np

    wide = np.complex128 if np.iscomplexobj(expected) or np.iscomplexobj(actual) else np.float64
    a, b = (np.atleast_1d(np.asarray(x, dtype=wide)) for x in (expected, actual))
    if not a.size:
        return 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not (np.isfinite(a) & np.isfinite(b) | same).all():
        return float("inf")
    difference = np.where(same, 0, np.where(same, 0, a) - np.where(same, 0, b)).reshape(-1, a.shape[-1])
    off = np.linalg.norm(difference, axis=1)
    if not off.any():
        return 0.0
    rows = np.linalg.norm(np.where(np.isfinite(a), a, 0).reshape(-1, a.shape[-1]), axis=1)
    size = np.maximum(rows, np.median(rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(off > 0, off / size, 0).max())


def _wrong(tolerance: float, error: float | None, reason: str) -> Proof:
    finite = None if error is None or error == float("inf") else error
    return Proof(False, "values", finite, tolerance, reason)


def _first_difference(reference: Path, candidate: Path) -> str:
    a, b = reference.read_bytes(), candidate.read_bytes()
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"{candidate.name} differs from byte {at:,} on ({len(a):,} and {len(b):,} bytes)"


def _short(value: Any) -> str:
    return repr(value)[:60]


def main() -> int:
    """Compare two files and print the proof."""
    parser = argparse.ArgumentParser(prog="moeprof.worker.compare_outputs")
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--tolerance", type=float)
    given = parser.parse_args()
    try:
        print(dumps(compare(given.reference, given.candidate, given.tolerance)))
    except MoeprofError as error:
        print(f"{error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
