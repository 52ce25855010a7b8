"""A zero exit status is not a capture: what a part must contain before it is saved."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moeprof.errors import CaptureError, MoeprofError, ToolError
from moeprof.machine.launcher import Team
from moeprof.machine.tools import NO_PERMISSION, PERMISSION_HINT
from moeprof.storage.manifest import Rank
from moeprof.trace import Trace, read
from moeprof.trace.ncu.counters import read_counters
from moeprof.worker import failures, nvtx
from moeprof.worker.failures import RankError

NO_KERNELS = "the profiler may have lost its events, or another profiler holds the GPU; see: moeprof doctor"
NO_KERNELS_OF_PROGRAM = (
    "the program ran nothing on the GPU while it was recorded: look at --start-after and --duration; nsys misses "
    "the work of children that are forked and never call exec: spawn them; else another profiler may hold the GPU: moeprof doctor"
)


def report_exists(report: Path, status: int, last_line: str) -> None:
    """Check that nsys wrote its report.

    Raises:
        ToolError: there is only a .qdstrm: the importer of nsys could not run, usually because a library is missing.
        CaptureError: there is no report.
    """
    if report.is_file():
        return
    if report.with_suffix(".qdstrm").is_file():
        raise ToolError(
            "nsys wrote a .qdstrm and no report: its importer could not run",
            "see which library is missing: moeprof doctor",
        )
    raise CaptureError(
        f"nsys ended (exit status {status}) without a report; it last printed: {last_line}", "see: moeprof doctor"
    )


def trace(path: Path, iterations: int | None, hint: str = "") -> Trace:
    """The trace at ``path``, which contains GPU work and, if ``iterations`` is given, exactly that many iteration ranges.
    ``hint`` is what to do where it has none.

    Raises:
        CaptureError: names what is missing and the likely cause.
    """
    try:
        trace = read(path)
    except MoeprofError as error:
        raise CaptureError(f"the trace cannot be read: {error.message}", error.hint) from error
    if not trace.ops["kind"].isin(["kernel", "comm", "graph"]).any():
        raise CaptureError(
            "the trace holds no kernels", hint or (NO_KERNELS_OF_PROGRAM if iterations is None else NO_KERNELS)
        )
    if iterations is None:
        return trace
    count = len(_iterations(trace))
    if count != iterations:
        raise CaptureError(
            f"the trace holds {count} iteration ranges, {iterations} ran",
            "events were lost: try fewer --iterations",
        )
    return trace


def _iterations(trace: Trace) -> pd.DataFrame:
    """The iteration ranges that the worker pushed."""
    return trace.ranges[(trace.ranges["domain"] == nvtx.DOMAIN) & (trace.ranges["name"] == nvtx.ITERATION)]


def ranks(path: Path, iterations: int | None, expected: tuple[Rank, ...], team: Team) -> tuple[Trace, RankError | None]:
    """As ``trace``; if several ranks ran, each must have its iteration ranges. The error of a rank that has not, if rank 0 is
    whole: the trace is of use without that rank.

    Raises:
        CaptureError: as ``trace``, or the first rank is lacking too.
    """
    if len(expected) < 2 or iterations is None:
        return trace(path, iterations), None
    whole = trace(path, None, NO_KERNELS)
    ours = _iterations(whole)
    by_process = ours["pid"].value_counts().to_dict()
    if sorted(by_process.values()) == [iterations] * len(expected):
        return whole, None
    lacking = [rank for rank in expected if by_process.get(rank.pid) != iterations]
    if expected[0] in lacking or not lacking:
        raise CaptureError(
            f"the trace holds {len(ours)} iteration ranges, {iterations} ran in each of {len(expected)} ranks",
            "events were lost: try fewer --iterations",
        )
    first = lacking[0].rank
    held = by_process.get(lacking[0].pid, 0)
    what = f"left {held} iteration ranges in the trace, {iterations} ran"
    hint = "the trace of the others was kept"
    return whole, failures.untraced(first, team.ranks, team.host_shown(first), what, hint)


def refused_metric(path: Path, last_line: str) -> str:
    """The error of ncu on a metric that it does not know, which ends its whole run; "" if it refused none."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line for line in (*text.splitlines(), last_line) if "==ERROR==" in line and "metric" in line.lower()]
    return lines[0].replace("==ERROR==", "").strip()[:200] if lines else ""


def counters(path: Path, status: int, last_line: str) -> int:
    """The number of kernels that ncu counted.

    Raises:
        ToolError: the driver does not let this user read counters.
        CaptureError: there is no table, or it has no kernel.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if NO_PERMISSION in text or NO_PERMISSION in last_line:
        raise ToolError(f"ncu may not read the GPU's counters ({NO_PERMISSION})", PERMISSION_HINT)
    if not text:
        raise CaptureError(
            f"ncu ended (exit status {status}) and wrote nothing; it last printed: {last_line}", "see: moeprof doctor"
        )
    counted = int(read_counters(path)["launch"].nunique())
    if not counted:
        raise CaptureError("ncu counted no kernel inside the measured range", "see the log")
    return counted
