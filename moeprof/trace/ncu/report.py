"""Read a raw report of Nsight Compute through NVIDIA's optional package ncu-report: the only user of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.errors import ToolError, TraceError
from moeprof.trace.ncu.counters import base_unit
from moeprof.trace.tables import COUNTERS, table

NCU_MAGIC = b"NVR\x00"
SHAPES = {
    "grid": ("launch__grid_dim_x", "launch__grid_dim_y", "launch__grid_dim_z"),
    "block": ("launch__block_dim_x", "launch__block_dim_y", "launch__block_dim_z"),
}


def is_report(path: Path) -> bool:
    """Whether the file is a raw report of Nsight Compute, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(NCU_MAGIC)) == NCU_MAGIC


def read_report(path: Path) -> pd.DataFrame:
    """The COUNTERS table of a ``.ncu-rep``, as of its raw CSV page in base units.

    Raises:
        ToolError: ncu-report is not installed.
        TraceError: the file cannot be opened; says what ncu-report says.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COUNTERS}
    for launch, action in enumerate(_actions(path)):
        names = set(action.metric_names())
        known = _launch(action, names)
        for name in sorted(n for n in names if "__" in n and not n.startswith(("device__", "c2clink__"))):
            value = _number(action.metric_by_name(name))
            if value is not None:
                unit, factor = base_unit(action.metric_by_name(name).unit() or "")
                row = {
                    "launch": launch,
                    "metric": name,
                    "unit": unit,
                    "value": value * factor,
                    **known,
                }
                for key, cell in row.items():
                    columns[key].append(cell)
    return table(COUNTERS, columns)


def read_rules(path: Path) -> list[dict[str, Any]]:
    """What ncu's rules said, one entry a rule and kernel: launch, kernel, rule, type, description, speedup_percent."""
    rules = []
    for launch, action in enumerate(_actions(path)):
        for rule in action.rule_results_as_dicts():
            message, estimate = rule.get("rule_message") or {}, rule.get("speedup_estimation") or {}
            if message.get("message"):
                rules.append(
                    {
                        "launch": launch, "kernel": _name(action), "rule": str(rule.get("rule_identifier", "")),
                        "type": str(message.get("type", "")), "description": str(message["message"]),
                        "speedup_percent": _percent(estimate.get("speedup")),
                    }
                )  # fmt: skip
    return rules


def _actions(path: Path) -> Iterator[Any]:
    try:
        package = importlib.import_module("ncu_report")
    except ImportError as error:
        raise ToolError(
            f"{path} is a raw report of Nsight Compute, which needs the package ncu-report",
            f"pip install 'moeprof[ncu]', or export it: ncu --import {path.name} --csv --page raw",
        ) from error
    try:
        context = package.load_report(str(path))
    except Exception as error:  # the package raises what its C++ raised
        raise TraceError(
            f"{path} cannot be opened: {' '.join(str(error).split())[:160]}", "count again with ncu"
        ) from error
    for number in range(context.num_ranges()):
        part = context.range_by_idx(number)
        yield from (part.action_by_idx(index) for index in range(part.num_actions()))


def _name(action: Any) -> str:
    """The demangled name, as the CSV has it."""
    return str(action.name(action.NameBase_DEMANGLED))


def _launch(action: Any, names: set[str]) -> dict[str, Any]:
    def one(name: str) -> int:
        return int(_number(action.metric_by_name(name)) or 0) if name in names else -1

    shapes = {key: f"({', '.join(str(one(axis)) for axis in SHAPES[key])})" for key in SHAPES}
    return {
        "kernel": _name(action), "device": one("device__attribute_device_index"), "stream": one("launch__stream_id"), **shapes,
    }  # fmt: skip


def _number(metric: Any) -> float | None:
    value = metric.value() if metric is not None and metric.has_value() else None
    return None if isinstance(value, str) or value is None or value != value else float(value)  # noqa: PLR0124


def _percent(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
