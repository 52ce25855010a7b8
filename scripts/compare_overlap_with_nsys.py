#!/usr/bin/env python3
"""Compare the hidden communication of moeprof with the overlap of communication and compute of nsys, kernel by kernel.

usage: compare_overlap_with_nsys.py TRACE.sqlite RANK_TRACE.parquet

RANK_TRACE is the output of `nsys recipe nccl_gpu_overlap_trace --input REPORT` for the same report, so that device, start and end
identify a kernel. nsys prints the share of a communication kernel that overlaps with compute in tenths of a percent. Exits 0 if
every share agrees to within that, 1 if not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from moeprof.analysis.device import DeviceView, views
from moeprof.errors import MoeprofError
from moeprof.trace import read

ROUNDED = 0.05 + 1e-9  # half of nsys's last digit, percent
KEY = ["device", "start", "end"]


def ours(view: DeviceView) -> pd.DataFrame:
    """device, start, end, and the hidden percent of every communication kernel of one GPU."""
    rows = view.communication != ""
    starts, ends = view.starts[rows], view.ends[rows]
    hidden = view.owners[0].covered(starts, ends)
    share = 100 * hidden / (ends - starts)
    return pd.DataFrame({"device": view.index, "start": starts, "end": ends, "hidden_percent": share})


def theirs(path: str) -> pd.DataFrame:
    """The communication kernels of the table of nsys, with the same columns."""
    table = pd.read_parquet(path).reset_index()
    table = table[table["Name"].str.startswith("nccl")]
    names = {"DeviceID": "device", "Start": "start", "End": "end", "Compute Overlap": "nsys_percent"}
    return table.rename(columns=names)[[*names.values()]]


def compared(trace: str, parquet: str) -> pd.DataFrame:
    """Both tables, one row per kernel; NaN if one table lacks it."""
    moeprof_rows = pd.concat([ours(view) for view in views(read(Path(trace)))])
    nsys_rows = theirs(parquet)
    shift = int(moeprof_rows["start"].min() - nsys_rows["start"].min())  # an export counts from the session's start
    nsys_rows[["start", "end"]] += shift
    return moeprof_rows.merge(nsys_rows, how="outer", on=KEY)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("parquet")
    args = parser.parse_args()
    try:
        both = compared(args.trace, args.parquet)
    except (MoeprofError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    off = (both["hidden_percent"] - both["nsys_percent"]).abs()
    wrong = both[~(off <= ROUNDED)]
    length = both["end"] - both["start"]
    hidden = (both["hidden_percent"] * length).sum() / length.sum()
    print(f"{len(both)} communication kernels, {hidden:.2f} % of their time hidden")
    print(f"{len(wrong)} differ from nsys; the largest difference is {off.max():.3f} percentage points")
    if len(wrong):
        print(wrong.head(8).to_string(index=False))
    return int(len(wrong) > 0)


if __name__ == "__main__":
    sys.exit(main())
