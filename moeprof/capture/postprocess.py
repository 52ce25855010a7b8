"""From what a profiler left to a file that may be kept: exported, checked, redacted, without a secret. On the host where it was made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture import commands, redact, validate
from moeprof.capture.child_processes import run
from moeprof.capture.program import cut
from moeprof.capture.program.window import Window
from moeprof.errors import CaptureError, MoeprofError, ToolError, WorkloadError
from moeprof.machine.launcher import Team
from moeprof.machine.tools import Tool
from moeprof.storage.manifest import Rank
from moeprof.trace import Trace
from moeprof.worker import failures, nvtx
from moeprof.worker.clock_offset import Anchor, Offset, zero
from moeprof.worker.failures import RankError, how_it_ended

Anchors = Mapping[int, tuple[Anchor, ...]]  # by rank, in the order of their numbers


@dataclass(frozen=True)
class Run:
    """A traced run of a variant: the ranks that must be in what it left on this host, and the anchors that they pushed.
    ``iterations`` is None for a program, of which ``window`` is kept; ``timeout_s`` is a tool's time limit; ``log`` returns the log of a
    tool."""

    variant: str
    iterations: int | None
    timeout_s: int
    log: Callable[[str], Path]
    team: Team
    expected: tuple[Rank, ...] = ()
    anchors: Anchors = field(default_factory=dict)
    window: Window = field(default_factory=Window)


@dataclass(frozen=True)
class Kept:
    """A file that may be kept: its zero by the host's clock, where anchors tell, and what it lacks: a rank, or the ranges that it was
    to be cut to (then it is whole)."""

    zero: Offset | None
    lacking: MoeprofError | None = None


class ExportError(CaptureError):
    """A report is there, and nsys could not export it."""


def nsys(run_: Run, tool: Tool, report: Path, target: Path, status: int, last_words: str) -> Kept:
    """The redacted export of a report.

    Raises:
        ExportError: the report is there and cannot be exported.
        MoeprofError: there is no report, or it does not hold what it must.
    """
    if status < 0 and not report.is_file():
        raise WorkloadError(f"nsys was {how_it_ended(status)}", f"read {run_.log('nsys')}")
    validate.report_exists(report, status, last_words)
    export = report.with_suffix(".sqlite")
    try:
        exported = run(commands.nsys_export(tool, report, export, run_.timeout_s), run_.log("export"))
    except WorkloadError as error:
        raise ExportError(error.message, error.hint) from error
    if exported != 0 or not export.is_file():
        raise ExportError(f"nsys export failed ({how_it_ended(exported)})", f"read {run_.log('export')}")
    trace, missing_rank = validate.ranks(export, run_.iterations, run_.expected, run_.team)
    lacking: MoeprofError | None = missing_rank
    if run_.window.cut:
        try:
            cut.nsys_export(export, cut.bounds(trace.ranges, run_.window))
        except CaptureError as error:
            lacking = error
        else:
            validate.trace(export, None, cut.NO_KERNELS)
    redact.nsys_export(export, target, os.environ)
    no_leak(target)
    by_rank = {rank.pid: run_.anchors.get(rank.rank, ()) for rank in run_.expected}
    return Kept(_zero(trace, by_rank), lacking)


def kineto(run_: Run, source: Path, target: Path, rank: int) -> Kept:
    """The redacted trace of one rank by torch.profiler.

    Raises:
        CaptureError: it is not there or not whole.
    """
    if not source.is_file():
        raise CaptureError(f"it left no {source.name}", f"read the logs of {run_.variant}")
    lacking: MoeprofError | None = None
    try:
        if run_.window.cut:
            try:
                cut.kineto_json(source, run_.window)
            except CaptureError as error:
                lacking = error
        redact.kineto_json(source, target)
    except (ValueError, MoeprofError) as error:
        raise CaptureError(f"{source.name} is not whole ({error})", "capture again") from error
    trace = validate.trace(target, run_.iterations or None)
    no_leak(target)
    return Kept(_zero(trace, {None: run_.anchors.get(rank, ())}), lacking)


def no_leak(path: Path) -> None:
    """A secret in a file that is to be kept stops it.

    Raises:
        ToolError: there is one; the file is gone.
    """
    if redact.leaks(path, redact.secrets(os.environ)):
        path.unlink()
        raise ToolError(
            f"{path.name} would hold the value of a secret variable", "report this as a bug; nothing was kept"
        )


def without_trace(rank: int, team: Team, error: MoeprofError) -> RankError:
    """The failure of a rank whose file, or that of all ranks of its host, is not there or not whole."""
    what = f"ended without a trace: {error.message}"
    return failures.untraced(rank, team.ranks, team.host_shown(rank), what, error.hint)


def _zero(trace: Trace, by_process: Mapping[int | None, tuple[Anchor, ...]]) -> Offset | None:
    """Where the trace's zero lies by the host's clock, from the anchors of the process (None: the only one) that pushed any."""
    table = trace.ranges
    ours = table[(table["domain"] == nvtx.DOMAIN) & (table["name"] == nvtx.CLOCK)]
    for pid, anchors in by_process.items():
        rows = ours if pid is None else ours[ours["pid"] == pid]
        at = dict(zip(rows["payload"].tolist(), rows["start_ns"].tolist(), strict=True))
        pairs = [(anchor, at[number]) for number, anchor in enumerate(anchors) if number in at]
        if pairs:
            return zero(pairs)
    return None
