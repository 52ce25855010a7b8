"""ncu on one kernel: its commands (pure), one run that leaves a report, and the pages of a report, redacted."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moeprof.capture import redact
from moeprof.capture.child_processes import failure_in, run
from moeprof.capture.validate import NO_PERMISSION, PERMISSION_HINT
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine import tools
from moeprof.machine.command import Command
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.trace.ncu import report as ncu_report
from moeprof.trace.ncu.pages import Pages, read_pages
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
MOST_TEXT = 400  # characters of ncu's list of kernels that an error repeats
NO_KERNEL = "No kernels were profiled"
PROGRAM_FAILED = "returned an error code"


@dataclass(frozen=True)
class NcuRequest:
    """What ncu is to count.

    Args:
        kernel: a regular expression, found anywhere in the demangled name.
        target: the workload's variant that runs; None: ``program`` runs.
        range_name: only kernels in this NVTX range; None: our measured range, or all of a program.
        counters: "full", "basic" (ncu's sets) or "metrics".
        metrics: counted besides the set.
        launches, skip: how many launches to count, after how many.
    """

    kernel: str
    target: Target | None
    program: tuple[str, ...] = ()
    range_name: str | None = None
    counters: str = "full"
    metrics: tuple[str, ...] = ()
    launches: int = 3
    skip: int = 0
    timeout_s: int = 600


def count(request: NcuRequest, tool: Tool, folder: Path) -> Command:
    """The one run under ncu; it leaves ``folder``/report.ncu-rep. Clocks are left as they are."""
    report = folder / REPORT
    argv = (
        str(tool.path), "--export", str(report), "--force-overwrite", "--clock-control", "none", "--graph-profiling", "node",
        "--target-processes", "all", "--import-source", "yes", *_counters(request), *_scope(request),
        "--kernel-name-base", "demangled", "--kernel-name", f"regex:{request.kernel}",
        *(("--launch-skip", str(request.skip)) if request.skip else ()), "--launch-count", str(request.launches),
        *_child(request, folder),
    )  # fmt: skip
    return Command(argv, report, request.timeout_s)


def _counters(request: NcuRequest) -> tuple[str, ...]:
    sections = {"full": ("--set", "full"), "basic": ("--set", "basic"), "metrics": ()}[request.counters]
    if request.counters == "basic":
        sections += tuple(word for name in BASIC_SECTIONS for word in ("--section", name))
    return (*sections, *(("--metrics", ",".join(request.metrics)) if request.metrics else ()))


def _scope(request: NcuRequest) -> tuple[str, ...]:
    """Our measured range; a range of ours by its name, of the program's own in NVTX's default domain, or as ncu spells it."""
    name = request.range_name
    if name is None:
        return () if request.target is None else ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/")
    if "/" not in name and "@" not in name:
        name = f"{nvtx.DOMAIN}@{name}/" if request.target is not None else f"{name}/"
    return ("--nvtx", "--nvtx-include", name)


def _child(ask: NcuRequest, folder: Path) -> tuple[str, ...]:
    if ask.target is None:
        return ask.program
    return WorkerSpec("measure", ask.target, measurement=Measurement("ncu", str(folder / RESULT))).argv


def pages(tool: Tool, report: Path) -> dict[str, Command]:
    """File of a page -> the command that prints it; needs no GPU."""
    words = (str(tool.path), "--import", str(report), "--csv", "--print-units", "base")
    return {file: Command((*words, *page), None, IMPORT_TIMEOUT_S) for file, page in PAGES.items()}


def available(wanted: Iterable[str], names: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(metrics that ncu can count, metrics that the chip lacks): by base name, the part before the first dot."""
    metrics = tuple(dict.fromkeys(wanted))
    available = tuple(m for m in metrics if m.partition(".")[0] in names or m.startswith(COMPUTED))
    return available, tuple(m for m in metrics if m not in available)


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
        after = text.partition(NO_KERNEL)[2].splitlines()[1:]
        kernels = "; ".join(line.strip("= ") for line in after if line.strip())[:MOST_TEXT]
        hint = (
            f"ncu found: {kernels}"
            if kernels
            else "see which there are: moeprof kernels CAPTURE; for another part of the program: --range"
        )
        return UsageError("ncu counted no kernel: none of that name ran in the range", hint)
    errors = [line for line in lines if line.startswith("==ERROR==")]
    last = (errors or lines or ["nothing"])[-1][:200]
    if errors and PROGRAM_FAILED not in text:
        return ToolError(
            f"ncu failed ({how_it_ended(status)}); its last message: {last}",
            "see: moeprof doctor; or try --counters basic",
        )
    return WorkloadError(
        f"the program ended with {how_it_ended(status)} under ncu; its last line: {last}", "run it without ncu first"
    )


def write_pages(tool: Tool, report: Path, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Write the report's pages into ``folder``, redacted; for each missing page: file -> why.

    Raises:
        ToolError: not even the raw page can be printed.
    """
    commands = pages(tool, report)
    with ThreadPoolExecutor(len(commands)) as pool:  # each takes ncu seconds to read the report
        reasons = pool.map(lambda file: _page(commands[file], folder / file, environment), commands)
        missing = {file: why for file, why in zip(commands, reasons, strict=True) if why}
    if RAW in missing:
        raise ToolError(
            f"ncu {tool.version} cannot read {report.name}: {missing[RAW]}", "use the ncu that wrote it, or a newer one"
        )
    return missing


def open_pages(paths: list[Path], ncu: Path | None, environment: Mapping[str, str]) -> tuple[Pages, tuple[Note, ...]]:
    """The pages in CSV files, in the folder of an earlier inspection, or of a raw report, and notes on pages that are missing.

    ncu prints the pages of a raw report; without ncu the package ncu-report reads its counters and rules.

    Raises:
        UsageError: a file is not there.
        ToolError: the report cannot be read.
    """
    if paths[0].is_dir():
        return pages_in(paths[0]), ()
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise UsageError(f"there is no file {absent[0]}", "give the pages that ncu --import wrote")
    if not ncu_report.is_report(paths[0]):
        return read_pages(paths), ()
    tool = tools.find("ncu", ncu)
    if tool is None:
        why = "it needs ncu (the package ncu-report does not give it)"
        recorded = Pages(ncu_report.read_report(paths[0]), tuple(ncu_report.read_rules(paths[0])))
        return recorded, (note("no-page", page="source page", why=why),)
    with tempfile.TemporaryDirectory() as scratch:
        missing = write_pages(tool, paths[0], Path(scratch), environment)
        return pages_in(Path(scratch)), missing_notes(missing)


def pages_in(folder: Path) -> Pages:
    """The pages that a folder contains."""
    return read_pages(folder / file for file in PAGES if (folder / file).is_file())


def missing_notes(missing: dict[str, str]) -> tuple[Note, ...]:
    """One note for each page that is missing: file -> why."""
    return tuple(note("no-page", page=file.removesuffix(".csv") + " page", why=why) for file, why in missing.items())


def _page(command: Command, target: Path, environment: Mapping[str, str]) -> str:
    """Empty where the page was written, else ncu's message."""
    whole = target.with_name(target.name + ".whole")
    try:
        with whole.open("wb") as file:
            ran = subprocess.run(
                command.argv, stdout=file, stderr=subprocess.PIPE, timeout=command.timeout_s, check=False
            )
        if ran.returncode != 0:
            lines = (ran.stderr.decode(errors="replace") or whole.read_text(errors="replace")).strip().splitlines()
            return lines[-1][:200] if lines else how_it_ended(ran.returncode)
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
