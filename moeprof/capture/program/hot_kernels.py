"""Which launches of a program ncu should count: of the kernels that cost most in the later half of its trace."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from moeprof.capture.commands import Launches
from moeprof.trace import read

MOST_LAUNCHES = 64  # between the first and the last of the chosen kernels


def choose(trace: Path, kernels: int) -> Launches | None:
    """The ``kernels`` kernels of that trace that take most time in the later half of its launches, as the shortest run of launches
    there that has all of them; None if it has no kernels."""
    ops = read(trace).ops
    launched = ops[ops["kind"] == "kernel"]
    return None if launched.empty else chosen(launched, kernels)


def chosen(launched: pd.DataFrame, kernels: int) -> Launches:
    """As ``choose``, of the kernels of a trace; ncu counts launches over all kernels of the chosen function names."""
    cost_ns = (launched["end_ns"] - launched["start_ns"]).groupby(launched["pid"]).sum()
    launched = launched[launched["pid"] == cost_ns.idxmax()].sort_values("start_ns").reset_index(drop=True)
    names = launched["name"].astype(str)
    later = launched.index >= len(launched) // 2
    duration_ns = (launched["end_ns"] - launched["start_ns"])[later]
    hot = list(duration_ns.groupby(names[later]).sum().sort_values(ascending=False, kind="stable").index[:kernels])
    functions = tuple(dict.fromkeys(function_name(name) for name in hot))
    matched = names[names.map(function_name).isin(functions)]
    before = int((matched.index < len(launched) // 2).sum())
    first, count = _shortest(list(matched.iloc[before:]), set(hot))
    return Launches(functions, before + first, min(count, MOST_LAUNCHES))


def _shortest(names: list[str], wanted: set[str]) -> tuple[int, int]:
    """The first and the number of the shortest run of ``names`` that contains all of ``wanted``, each of which is among them."""
    last: dict[str, int] = {}
    best = (0, len(names))
    for index, name in enumerate(names):
        if name in wanted:
            last[name] = index
        if len(last) == len(wanted):
            first = min(last.values())
            best = min(best, (first, index - first + 1), key=lambda run: run[1])
    return best


def function_name(name: str) -> str:
    """The name that ncu matches by default: without namespace, template arguments, return type and parameters.

    ``void at::native::elementwise_kernel<128, 4>(int)`` is "elementwise_kernel".
    """
    text = name.replace("(anonymous namespace)", "").replace("<unnamed>", "")
    depth, outside = 0, []
    for character in text:
        depth += character in "<("
        if depth == 0:
            outside.append(character)
        depth -= character in ">)"
    plain = "".join(outside).strip()
    return re.split(r"::|\s", plain)[-1] or name
