"""Which launches of a program ncu should count: of the kernels that cost most in the later half of its trace."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from moeprof.capture.commands import Launches
from moeprof.trace import read

MOST_LAUNCHES = 64  # between the first and the last of the chosen kernels


def choose(trace: Path, kernels: int) -> Launches | None:
    """The ``kernels`` kernels of that trace that take most time in the later half of its launches, and the launches, counted over
    these kernels alone, from where all of them are met; None if it has no kernels."""
    ops = read(trace).ops
    launched = ops[ops["kind"] == "kernel"].reset_index(drop=True)
    return None if launched.empty else _chosen(launched, kernels)


def _chosen(launched: pd.DataFrame, kernels: int) -> Launches:
    names = launched["name"].astype(str).map(function_name)
    duration_ns = launched["end_ns"] - launched["start_ns"]
    later = launched.index >= len(launched) // 2
    cost_ns = duration_ns[later].groupby(names[later]).sum().sort_values(ascending=False, kind="stable")
    hot = tuple(cost_ns.index[:kernels])
    ours = names[names.isin(hot)].reset_index()
    first = int((ours["index"] < len(launched) // 2).sum())
    seen = ours["name"].iloc[first:]
    last = max(int((seen == name).to_numpy().argmax()) for name in hot)
    return Launches(hot, first, min(last + 1, MOST_LAUNCHES))


def function_name(name: str) -> str:
    """The name that ncu matches by default: without namespace, template arguments, return type and parameters.

    ``void at::native::elementwise_kernel<128, 4>(int)`` is "elementwise_kernel".
    """
    text = name.replace("(anonymous namespace)", "").replace("<unnamed>", "")
    depth, kept = 0, []
    for character in text:
        depth += character in "<("
        if depth == 0:
            kept.append(character)
        depth -= character in ">)"
    plain = "".join(kept).strip()
    return re.split(r"::|\s", plain)[-1] or name
