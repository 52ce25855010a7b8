"""Which operator of the framework made a host call: what a person can search for in the program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

OUTSIDE = "outside any operator"


@dataclass(frozen=True)
class Site:
    """Host calls of one name made inside one outermost operator ("" where it is not known)."""

    call: str
    operator: str
    count: int
    total_ns: int


def sites(calls: pd.DataFrame, operators: pd.DataFrame | None) -> tuple[Site, ...]:
    """Calls by name and outermost operator around them on their thread, the most calls first.

    ``operators`` are the outermost ones, by thread and start: start_ns, end_ns, tid, name; None where the trace holds none.
    """
    around = [""] * len(calls) if operators is None else _around(calls, operators)
    frame = pd.DataFrame(
        {
            "call": calls["name"].astype(str).to_numpy(),
            "operator": around,
            "ns": (calls["end_ns"] - calls["start_ns"]).to_numpy(),
        }
    )
    sums = frame.groupby(["call", "operator"], sort=True)["ns"].agg(["size", "sum"])
    by_site = [Site(str(c), str(o), int(n), int(ns)) for (c, o), n, ns in sums.itertuples(name=None)]
    return tuple(sorted(by_site, key=lambda s: (-s.count, -s.total_ns, s.call, s.operator)))


def _around(calls: pd.DataFrame, operators: pd.DataFrame) -> list[str]:
    """The outermost operator that runs on the call's thread when the call begins."""
    names = np.full(len(calls), OUTSIDE, dtype=object)
    threads = calls["tid"].to_numpy()
    for tid, of_thread in operators.groupby("tid", sort=False):
        rows = np.flatnonzero(threads == tid)
        begun = calls["start_ns"].to_numpy()[rows]
        at = np.searchsorted(of_thread["start_ns"].to_numpy(), begun, side="right") - 1
        inside = (at >= 0) & (begun <= of_thread["end_ns"].to_numpy()[np.maximum(at, 0)])
        names[rows[inside]] = of_thread["name"].astype(str).to_numpy(dtype=object)[at[inside]]
    return [str(name) for name in names]
