"""From a target on the command line to what ncu counts: a workload, a capture's workload, or a program."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.capture.child_processes import WorkerProcess
from moeprof.errors import CaptureError, MoeprofError, ToolError, UsageError
from moeprof.kernels.inspection import BASIC, OF_SETS, WANTED
from moeprof.kernels.ncu import LOG, RAW, NcuRequest, available
from moeprof.machine import ncu_query, nvml, tools
from moeprof.machine.facts import facts
from moeprof.machine.ncu_metrics import DURATION
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage import manifest
from moeprof.storage.manifest import Manifest
from moeprof.worker.messages import Prepare
from moeprof.worker.spec import Target, WorkerSpec
from moeprof.workload.find import load
from moeprof.workload.model import unchanged


@dataclass(frozen=True)
class InspectRequest:
    """The arguments of ``moeprof inspect``.

    Args:
        kernel: a regular expression, found anywhere in the demangled name.
        targets: a workload, a capture, or the pages of a report; empty with ``program``.
        counters: "full", "basic" or comma-separated metrics of ncu.
        launches, skip: how many launches to count, after how many.
    """

    kernel: str
    targets: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    variant: str | None = None
    range_name: str | None = None
    preset: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    counters: str = "full"
    launches: int = 3
    skip: int = 0
    ncu: Path | None = None
    timeout_s: int = 600
    output: Path | None = None
    force: bool = False
    keep_raw: bool = False


def ncu_tool(given: Path | None) -> Tool:
    """ncu, on a machine that has a GPU to count on.

    Raises:
        ToolError: either is missing.
    """
    tool = tools.find("ncu", given)
    if tool is None:
        raise ToolError("ncu was not found", "install Nsight Compute, or give --ncu PATH; see: moeprof doctor")
    if not nvml.gpus():
        raise ToolError(
            "there is no CUDA GPU here, and counters are a GPU's",
            "run it on a GPU machine, or inspect a report that ncu wrote",
        )
    return tool


def kind_of(request: InspectRequest) -> str:
    """What kind of target it is: "program", "capture", "report" or "workload".

    Raises:
        UsageError: there is no target, or more than one.
    """
    if request.program:
        return "program"
    if not request.targets:
        raise UsageError(
            "nothing to inspect",
            "give a workload, a capture, ncu's .csv or .ncu-rep, or: moeprof inspect --kernel K -- PROGRAM",
        )
    paths = [Path(target) for target in request.targets]
    if paths[0].is_dir():
        return "report" if (paths[0] / RAW).is_file() else "capture"
    if paths[0].is_file() and paths[0].suffix != ".py":
        return "report"
    if len(paths) > 1:
        raise UsageError(
            f"one target at a time, found {' '.join(request.targets)}",
            "to inspect a program: moeprof inspect --kernel K -- PROGRAM",
        )
    return "workload"


def ncu_request(request: InspectRequest) -> NcuRequest:
    """What ncu is to count for a workload, a capture's workload or a program. Parameters are not calibrated yet.

    Raises:
        UsageError: there is no such workload, variant, preset or parameter.
        CaptureError: the capture was not made on a GPU, or does not name its program.
    """
    program, target = request.program, None
    if request.targets and Path(request.targets[0]).is_dir():
        program, target = _of_capture(request, manifest.read(Path(request.targets[0])))
    elif request.targets:
        target = _of_workload(request)
    counters = request.counters if request.counters in ("full", "basic") else "metrics"
    return NcuRequest(
        request.kernel, target, program, request.range_name, counters, (), request.launches, request.skip, request.timeout_s,
    )  # fmt: skip


def _of_workload(request: InspectRequest) -> Target:
    name, variant = split(request.targets[0])
    workload = load(name)
    chosen = workload.variant(variant or request.variant or workload.optimized).name
    return Target(name, chosen, "cuda", workload.params(request.preset or "default", request.overrides))


def split(target: str) -> tuple[str, str | None]:
    """WORKLOAD[/VARIANT] apart; the workload may be the path of a .py file."""
    if target.endswith(".py") or "/" not in target:
        return target, None
    name, _, variant = target.rpartition("/")
    return name, variant


def _of_capture(request: InspectRequest, stored: Manifest) -> tuple[tuple[str, ...], Target | None]:
    """(program, target): one of the two, as the capture recorded it; its parameters may be changed."""
    folder = request.targets[0]
    if stored.device != "cuda":
        raise CaptureError(
            f"{folder} was captured on the CPU: it has no counters to count again", "inspect a capture of a GPU"
        )
    if stored.kind == "program":
        if "--" not in stored.argv:
            raise CaptureError(
                f"{folder} does not contain the command of its program", "moeprof inspect --kernel K -- PROGRAM ARGS"
            )
        return stored.argv[stored.argv.index("--") + 1 :], None
    name, variant = workload_of(stored), request.variant or stored.optimized
    workload = load(name)
    typed = workload.params(request.preset or stored.preset, request.overrides)
    recorded = stored.params if request.preset is None else typed
    params = {**recorded, **{key: typed[key] for key in request.overrides}}
    return (), Target(name, workload.variant(str(variant)).name, "cuda", params)


def workload_of(stored: Manifest) -> str:
    """The name under which the capture's workload is found: registered, or the .py file of its command line.

    Raises:
        CaptureError: it is neither.
    """
    for name in (stored.name, *(word for word in stored.argv if word.endswith(".py") and Path(word).is_file())):
        try:
            if load(name).name == stored.name:
                return name
        except UsageError:
            continue
    raise CaptureError(
        f"the capture's workload {stored.name!r} is not found from here", "run it in the folder where it was captured"
    )


def resolved(request: NcuRequest, folder: Path) -> NcuRequest:
    """The request with the parameters that the workload calibrates on this machine.

    Raises:
        ToolError: torch is missing, or the variant cannot run here.
    """
    target = request.target
    if target is None:
        return request
    if importlib.util.find_spec("torch") is None:
        raise ToolError("torch is not installed", "pip install 'moeprof[gpu]'")
    workload = load(target.workload)
    reason = workload.variant(target.variant).needs(facts())
    if reason:
        raise ToolError(
            f"{workload.name}/{target.variant} cannot run here: {reason}", "moeprof list says what each needs"
        )
    if workload.resolve is unchanged:
        return request
    worker = WorkerProcess(target.variant, WorkerSpec("serve", target), folder / LOG, request.timeout_s)
    try:
        worker.hello()
        params = worker.ask(Prepare(target.params)).params
    finally:
        worker.close()
    return replace(request, target=replace(target, params=params))


def metrics(counters: str) -> tuple[str, ...]:
    """The metrics that ncu counts by name, besides its set. For a list of metrics: these and the duration.

    Raises:
        UsageError: ``counters`` is neither a set nor a list of metrics.
    """
    if counters in ("full", "basic"):
        sections = WANTED if counters == "full" else BASIC
        beside = (section for name, section in sections.items() if name not in OF_SETS)
        return tuple(dict.fromkeys(metric for section in beside for metric in section))
    named = tuple(word.strip() for word in counters.split(",") if word.strip())
    wrong = [word for word in named if not re.fullmatch(r"[A-Za-z0-9_.]+", word) or "__" not in word]
    if wrong or not named:
        raise UsageError(
            f"--counters {','.join(wrong) or counters!r}: neither full, basic nor a metric",
            "metrics: ncu --query-metrics",
        )
    return tuple(dict.fromkeys((DURATION, *named)))


def checked(request: NcuRequest, counters: str, tool: Tool) -> tuple[NcuRequest, tuple[Note, ...]]:
    """The request with the metrics that the chip has, and a note on the others."""
    names = ncu_query.names(tool)
    wanted = metrics(counters)
    if not names:
        unchecked = note("metrics-unchecked", command=str(ncu_query.query(tool)))
        return (replace(request, metrics=wanted) if request.counters == "metrics" else request), (unchecked,)
    countable, missing = available(wanted, names)
    notes = (note("chip-lacks", names=", ".join(missing)),) if missing else ()
    return replace(request, metrics=countable), notes


def compiled(kernel: str) -> dict[str, Any]:
    """What nvcc reported of a kernel of our own CUDA sources, as built for this GPU: registers and spills. Empty for others."""
    from moeprof.workloads.common import nvcc

    gpu = next(iter(nvml.gpus()), None)
    if gpu is None or not gpu.compute_capability:
        return {}
    major, _, minor = gpu.compute_capability.partition(".")
    try:
        return nvcc.usage_of(kernel, (int(major), int(minor)))
    except MoeprofError:  # no nvcc, or one that does not run: then none of our sources was built
        return {}
