"""The lines of a kernel in which its warps were found waiting: of its source and of its SASS, from a SOURCE table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from moeprof.kernels.ranking import function


@dataclass(frozen=True)
class Hot:
    """A line and its stall samples over all launches that were profiled. ``place``: ``file:line``, or the address without the
    kernel's start; ``share``: of the kernel's samples; ``stall``: the state that most of them are in, by ncu's name."""

    place: str
    text: str
    samples: int
    share: float
    stall: str
    stall_share: float  # of this line's samples


def hot_sass(frame: pd.DataFrame, kernel: str, top: int) -> tuple[Hot, ...]:
    """The instructions of ``kernel`` with most samples; launches of one kernel share their addresses."""
    rows = of_kernel(frame, kernel)
    rows = rows[rows["address"] != ""]
    start = min((address(a) for a in rows["address"]), default=0)
    places = [f"+{address(a) - start:#06x}" for a in rows["address"]]
    return _ranked(rows.assign(place=places, shown=rows["text"]), top)


def hot_source(frame: pd.DataFrame, kernel: str, top: int) -> tuple[Hot, ...]:
    """The source lines of ``kernel`` with most samples; none where the compiler kept no lines."""
    rows = of_kernel(frame, kernel)
    rows = rows[(rows["line"] >= 0) & (rows["file"].astype(str) != "")]
    places = [f"{PurePosixPath(str(file)).name}:{line}" for file, line in zip(rows["file"], rows["line"], strict=True)]
    return _ranked(rows.assign(place=places, shown=rows["source"]), top)


def executed(frame: pd.DataFrame, kernel: str) -> list[tuple[str, int]]:
    """(instruction, times a warp executed it) of one launch on average; none from the view with lines, which may repeat an instruction."""
    rows = of_kernel(frame, kernel)
    rows = rows[(rows["address"] != "") & (rows["executed"] >= 0) & (rows["line"] < 0)]
    launches = max(rows["block"].nunique(), 1)
    by_address = rows.groupby("address", sort=True).agg({"text": "first", "executed": "sum"})
    return [
        (str(text), round(count / launches))
        for text, count in zip(by_address["text"], by_address["executed"], strict=True)
    ]


def of_kernel(frame: pd.DataFrame, kernel: str) -> pd.DataFrame:
    """The rows of a kernel; of its function, where the page spells names otherwise than the counters do."""
    names = frame["kernel"].astype(str)
    same = names == kernel
    return frame[same] if same.any() else frame[names.map(function) == function(kernel)]


def address(text: str) -> int:
    """An address as the page spells it: ``7f2b…`` or ``0x7f2b…``; a plain row number where it is none."""
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _ranked(rows: pd.DataFrame, top: int) -> tuple[Hot, ...]:
    total = int(rows["samples"].sum())
    if not total:
        return ()
    places = [_hot(str(place), group, total) for place, group in rows.groupby("place", sort=True)]
    return tuple(sorted((hot for hot in places if hot.samples), key=lambda hot: (-hot.samples, hot.place))[:top])


def _hot(place: str, group: pd.DataFrame, total: int) -> Hot:
    samples = int(group["samples"].sum())
    stalls = group.groupby(group["stall"].astype(str))["stall_samples"].sum().drop("", errors="ignore")
    most = str(stalls.idxmax()) if len(stalls) and stalls.max() > 0 else ""
    share = float(stalls.max()) / samples if most and samples else 0.0
    return Hot(place, str(group["shown"].iloc[0]), samples, samples / total, most, min(share, 1.0))
