"""A zero exit is not a capture: what a part must hold before it is kept."""

from __future__ import annotations

from pathlib import Path

from moeprof.errors import CaptureError, MoeprofError, ToolError
from moeprof.machine.launcher import Team
from moeprof.machine.tools import NO_PERMISSION, PERMISSION_HINT
from moeprof.storage.manifest import Rank
from moeprof.trace import Trace, read
from moeprof.trace.ncu.counters import read_counters
from moeprof.worker import failures, nvtx
from moeprof.worker.failures import RankError


def report_exists(report: Path, status: int, said: str) -> None:
    """nsys left its report.

    Raises:
        ToolError: only a .qdstrm is there: its importer could not run, usually for a missing library.
        CaptureError: there is nothing.
    """
    if report.is_file():
        return
    if report.with_suffix(".qdstrm").is_file():
        raise ToolError(
            "nsys left a .qdstrm and no report: its importer could not run",
            "see which library it misses: moeprof doctor",
        )
    raise CaptureError(
        f"nsys ended (exit status {status}) without a report; it last said: {said}", "see: moeprof doctor"
    )


def trace(path: Path, iterations: int | None) -> Trace:
    """The trace at ``path`` has GPU work and, where ``iterations`` is given, exactly that many of our iteration ranges.

    Raises:
        CaptureError: names what is missing and the likely cause.
    """
    try:
        found = read(path)
    except MoeprofError as error:
        raise CaptureError(f"the trace cannot be read: {error.message}", error.hint) from error
    if not found.ops["kind"].isin(["kernel", "comm", "graph"]).any():
        raise CaptureError(
            "the trace holds no kernels",
            "the profiler may have lost its events, or another profiler holds the GPU; see: moeprof doctor",
        )
    if iterations is None:
        return found
    ours = (found.ranges["domain"] == nvtx.DOMAIN) & (found.ranges["name"] == nvtx.ITERATION)
    if int(ours.sum()) != iterations:
        raise CaptureError(
            f"the trace holds {int(ours.sum())} iteration ranges, {iterations} ran",
            "events were lost: try fewer --iterations",
        )
    return found


def ranks(path: Path, iterations: int | None, expected: tuple[Rank, ...], team: Team) -> tuple[Trace, RankError | None]:
    """As ``trace``; where several ranks ran, each must have left its iteration ranges. What is said of one that did not, while
    those of the first are whole: the trace is of use without it.

    Raises:
        CaptureError: as ``trace``, or the first rank is lacking too.
    """
    if len(expected) < 2 or iterations is None:
        return trace(path, iterations), None
    found = trace(path, None)
    ours = found.ranges[(found.ranges["domain"] == nvtx.DOMAIN) & (found.ranges["name"] == nvtx.ITERATION)]
    by_process = ours["pid"].value_counts().to_dict()
    if sorted(by_process.values()) == [iterations] * len(expected):
        return found, None
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
    return found, failures.untraced(first, team.ranks, team.host_shown(first), what, hint)


def refused_metric(path: Path, said: str) -> str:
    """What ncu says of a metric that it does not know, which ends its whole run; "" where it refused none."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line for line in (*text.splitlines(), said) if "==ERROR==" in line and "metric" in line.lower()]
    return lines[0].replace("==ERROR==", "").strip()[:200] if lines else ""


def counters(path: Path, status: int, said: str) -> int:
    """The number of kernels that ncu counted.

    Raises:
        ToolError: the driver does not let this user read counters.
        CaptureError: there is no table, or it has no kernel.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if NO_PERMISSION in text or NO_PERMISSION in said:
        raise ToolError(f"ncu may not read the GPU's counters ({NO_PERMISSION})", PERMISSION_HINT)
    if not text:
        raise CaptureError(
            f"ncu ended (exit status {status}) and wrote nothing; it last said: {said}", "see: moeprof doctor"
        )
    counted = int(read_counters(path)["launch"].nunique())
    if not counted:
        raise CaptureError("ncu counted no kernel inside the measured range", "see the log")
    return counted
