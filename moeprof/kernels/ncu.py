"""Count one kernel with ncu: its commands (pure), one run that leaves a report, then the report's pages, redacted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moeprof.capture import redact
from moeprof.capture.child_processes import failure_in, run
from moeprof.capture.validate import NO_PERMISSION, PERMISSION_HINT
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine.command import Command
from moeprof.machine.tools import Tool
from moeprof.worker import nvtx
from moeprof.worker.failures import how_it_ended
from moeprof.worker.spec import Measurement, Target, WorkerSpec

REPORT, LOG, RESULT = "report.ncu-rep", "ncu.log", "result.json"
RAW, DETAILS, SASS, LINES = "raw.csv", "details.csv", "source-sass.csv", "source-lines.csv"
# file -> the words after ``ncu --import REPORT --csv --print-units base`` that give it
PAGES: dict[str, tuple[str, ...]] = {
    RAW: ("--page", "raw"),
    DETAILS: ("--page", "details"),
    SASS: ("--page", "source", "--print-source", "sass"),
    LINES: ("--page", "source", "--print-source", "cuda,sass"),
}
BASIC_SECTIONS = ("SchedulerStats", "WarpStateStats")  # beside those of ncu's own set basic
IMPORT_TIMEOUT_S = 600
COMPUTED = (
    "launch__",
    "device__",
    "derived__",
    "smsp__pcsamp_",
    "sm__maximum_",
)  # of no hardware unit: --query-metrics has no line for them
NO_KERNEL = "No kernels were profiled"
PROGRAM_FAILED = "returned an error code"


@dataclass(frozen=True)
class Ask:
    """What to count: the kernels of ``target`` or of ``program`` that the regular expression finds, ``launches`` of them after
    ``skip``, in the NVTX range ``range_name``; ``counters`` is "full", "basic" or "metrics", and ``metrics`` are asked beside it."""

    kernel: str
    target: Target | None
    program: tuple[str, ...] = ()
    range_name: str | None = None
    counters: str = "full"
    metrics: tuple[str, ...] = ()
    launches: int = 3
    skip: int = 0
    timeout_s: int = 600


def count(ask: Ask, tool: Tool, folder: Path) -> Command:
    """The one run under ncu; it leaves ``folder``/report.ncu-rep. Clocks are left as they are."""
    report = folder / REPORT
    argv = (
        str(tool.path), "--export", str(report), "--force-overwrite", "--clock-control", "none", "--graph-profiling", "node",
        "--target-processes", "all", "--import-source", "yes", *_what(ask), *_scope(ask),
        "--kernel-name-base", "demangled", "--kernel-name", f"regex:{ask.kernel}",
        *(("--launch-skip", str(ask.skip)) if ask.skip else ()), "--launch-count", str(ask.launches),
        *_child(ask, folder),
    )  # fmt: skip
    return Command(argv, report, ask.timeout_s)


def _what(ask: Ask) -> tuple[str, ...]:
    sections = {"full": ("--set", "full"), "basic": ("--set", "basic"), "metrics": ()}[ask.counters]
    if ask.counters == "basic":
        sections += tuple(word for name in BASIC_SECTIONS for word in ("--section", name))
    return (*sections, *(("--metrics", ",".join(ask.metrics)) if ask.metrics else ()))


def _scope(ask: Ask) -> tuple[str, ...]:
    """Our measured range; a range of ours by its name, of the program's own in NVTX's default domain, or as ncu spells it."""
    name = ask.range_name
    if name is None:
        return () if ask.target is None else ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/")
    if "/" not in name and "@" not in name:
        name = f"{nvtx.DOMAIN}@{name}/" if ask.target is not None else f"{name}/"
    return ("--nvtx", "--nvtx-include", name)


def _child(ask: Ask, folder: Path) -> tuple[str, ...]:
    if ask.target is None:
        return ask.program
    return WorkerSpec("measure", ask.target, measurement=Measurement("ncu", str(folder / RESULT))).argv


def pages(tool: Tool, report: Path) -> dict[str, Command]:
    """File of a page -> the command that prints it; needs no GPU."""
    words = (str(tool.path), "--import", str(report), "--csv", "--print-units", "base")
    return {file: Command((*words, *page), None, IMPORT_TIMEOUT_S) for file, page in PAGES.items()}


def chosen(wanted: Iterable[str], names: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(metrics to ask for, metrics that the chip has not): by base name, the part before the first dot."""
    each = tuple(dict.fromkeys(wanted))
    here = tuple(m for m in each if m.partition(".")[0] in names or m.startswith(COMPUTED))
    return here, tuple(m for m in each if m not in here)


def profile(command: Command, folder: Path) -> None:
    """Run ncu; returns once its report is there, whatever became of the program after that.

    Raises:
        ToolError: counters are not permitted, or ncu failed.
        UsageError: no kernel of that name ran where it was looked for.
        WorkloadError: the workload or the program failed, or ran out of time.
    """
    assert command.produces is not None
    status = run(command, folder / LOG)
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    if NO_PERMISSION in text:
        raise ToolError(f"ncu may not read the GPU's counters ({NO_PERMISSION})", PERMISSION_HINT)
    if not command.produces.is_file():
        raise failure(text, status)


def failure(text: str, status: int) -> MoeprofError:
    """Why ncu left no report, from its exit status and what it and its child printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    child = failure_in(lines)
    if child is not None:
        return child.exception()
    if NO_KERNEL in text and status == 0:
        heard = "; ".join(line.strip("= ") for line in text.partition(NO_KERNEL)[2].splitlines()[1:] if line.strip())[
            :400
        ]
        hint = (
            f"ncu found: {heard}"
            if heard
            else "see which there are: moeprof kernels CAPTURE; for another part of the program: --range"
        )
        return UsageError("ncu counted no kernel: none of that name ran in the range", hint)
    own = [line for line in lines if line.startswith("==ERROR==")]
    last = (own or lines or ["nothing"])[-1][:200]
    if own and PROGRAM_FAILED not in text:
        return ToolError(
            f"ncu failed ({how_it_ended(status)}); it said: {last}", "see: moeprof doctor; or try --counters basic"
        )
    return WorkloadError(
        f"the program ended with {how_it_ended(status)} under ncu; it last said: {last}", "run it without ncu first"
    )


def write_pages(tool: Tool, report: Path, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Write the report's pages into ``folder``, redacted; file -> why it is not there.

    Raises:
        ToolError: not even the raw page could be had.
    """
    commands = pages(tool, report)
    with ThreadPoolExecutor(len(commands)) as pool:  # each takes ncu seconds to read the report
        reasons = pool.map(lambda file: _page(commands[file], folder / file, environment), commands)
        lacking = {file: why for file, why in zip(commands, reasons, strict=True) if why}
    if RAW in lacking:
        raise ToolError(
            f"ncu {tool.version} cannot read {report.name}: {lacking[RAW]}", "use the ncu that wrote it, or a newer one"
        )
    return lacking


def _page(command: Command, target: Path, environment: Mapping[str, str]) -> str:
    """Empty where it was written, else what ncu said."""
    whole = target.with_name(target.name + ".whole")
    try:
        with whole.open("wb") as file:
            ran = subprocess.run(
                command.argv, stdout=file, stderr=subprocess.PIPE, timeout=command.timeout_s, check=False
            )
        if ran.returncode != 0:
            said = (ran.stderr.decode(errors="replace") or whole.read_text(errors="replace")).strip().splitlines()
            return said[-1][:200] if said else how_it_ended(ran.returncode)
        if not whole.stat().st_size:
            return "the page is empty"
        (redact.ncu_source if command.argv[-2] == "--print-source" else redact.ncu_csv)(whole, target)
        if _blank(target):  # a library's kernel has no lines of source
            target.unlink()
            return "the page is empty"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        whole.unlink(missing_ok=True)
    return _leak(target, environment)


def _blank(page: Path) -> bool:
    with page.open(encoding="utf-8", errors="replace") as file:
        return not any(line.strip() for line in file)


def _leak(page: Path, environment: Mapping[str, str]) -> str:
    if not redact.leaks(page, redact.secrets(environment)):
        return ""
    page.unlink()
    return "it would hold the value of a secret variable"
