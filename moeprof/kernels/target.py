"""From a target on the command line to what ncu is asked to count, and the folder that its pages go to."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.capture.child_processes import WorkerProcess
from moeprof.errors import CaptureError, MoeprofError, ToolError, UsageError
from moeprof.kernels import ncu as inspection
from moeprof.kernels.counters import DURATION
from moeprof.kernels.inspection import BASIC, OF_SETS, WANTED
from moeprof.kernels.ncu import Ask
from moeprof.machine import catalogue, ncu_query, tools
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage import manifest
from moeprof.storage.capture_folder import OUTPUT
from moeprof.storage.files import PARTIAL
from moeprof.storage.manifest import Manifest
from moeprof.worker.messages import Prepare
from moeprof.worker.spec import Target, WorkerSpec
from moeprof.workload.find import load
from moeprof.workload.model import unchanged

NAME = "inspect"


@dataclass(frozen=True)
class Wish:
    """What the user asked for. ``targets``: a workload, a capture, or the pages of a report; empty with ``program``.

    ``counters``: "full", "basic" or comma-separated metrics of ncu.
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


def tool(given: Path | None) -> Tool:
    """ncu, on a machine that has a GPU to count on.

    Raises:
        ToolError: either is missing.
    """
    found = tools.find("ncu", given)
    if found is None:
        raise ToolError("ncu was not found", "install Nsight Compute, or give --ncu PATH; see: moeprof doctor")
    if not tools.gpus():
        raise ToolError(
            "there is no CUDA GPU here, and counters are a GPU's",
            "run it on a GPU machine, or inspect a report that ncu wrote",
        )
    return found


def ask(wish: Wish) -> Ask:
    """What to count for a workload, a capture's workload or a program, with parameters as asked for.

    Raises:
        UsageError: there is no such workload, variant, preset or parameter.
        CaptureError: the capture was not made on a GPU, or does not say of what.
    """
    program, target = wish.program, None
    if wish.targets and Path(wish.targets[0]).is_dir():
        program, target = _of_capture(wish, manifest.read(Path(wish.targets[0])))
    elif wish.targets:
        target = _of_workload(wish)
    counters = wish.counters if wish.counters in ("full", "basic") else "metrics"
    return Ask(
        wish.kernel, target, program, wish.range_name, counters, (), wish.launches, wish.skip, wish.timeout_s,
    )  # fmt: skip


def _of_workload(wish: Wish) -> Target:
    name, variant = split(wish.targets[0])
    workload = load(name)
    chosen = workload.variant(variant or wish.variant or workload.optimized).name
    return Target(name, chosen, "cuda", workload.params(wish.preset or "default", wish.overrides))


def split(target: str) -> tuple[str, str | None]:
    """WORKLOAD[/VARIANT] apart; the workload may be the path of a .py file."""
    if target.endswith(".py") or "/" not in target:
        return target, None
    name, _, variant = target.rpartition("/")
    return name, variant


def _of_capture(wish: Wish, found: Manifest) -> tuple[tuple[str, ...], Target | None]:
    """(program, target): one of the two, as the capture recorded it; its parameters may be changed."""
    folder = wish.targets[0]
    if found.device != "cuda":
        raise CaptureError(
            f"{folder} was captured on the CPU: it has no counters to count again", "inspect a capture of a GPU"
        )
    if found.kind == "program":
        if "--" not in found.argv:
            raise CaptureError(
                f"{folder} does not say how its program was started", "moeprof inspect --kernel K -- PROGRAM ARGS"
            )
        return found.argv[found.argv.index("--") + 1 :], None
    name, variant = workload_of(found), wish.variant or found.optimized
    workload = load(name)
    typed = workload.params(wish.preset or found.preset, wish.overrides)
    kept = found.params if wish.preset is None else typed
    params = {**kept, **{key: typed[key] for key in wish.overrides}}
    return (), Target(name, workload.variant(str(variant)).name, "cuda", params)


def workload_of(found: Manifest) -> str:
    """The name under which the capture's workload is found: registered, or the .py file of its command line.

    Raises:
        CaptureError: it is neither.
    """
    for name in (found.name, *(word for word in found.argv if word.endswith(".py") and Path(word).is_file())):
        try:
            if load(name).name == found.name:
                return name
        except UsageError:
            continue
    raise CaptureError(
        f"the capture's workload {found.name!r} is not found from here", "run it in the folder where it was captured"
    )


def resolved(ask: Ask, folder: Path) -> Ask:
    """With the parameters that the workload calibrates on this machine.

    Raises:
        ToolError: torch is missing, or the variant cannot run here.
    """
    target = ask.target
    if target is None:
        return ask
    if importlib.util.find_spec("torch") is None:
        raise ToolError("torch is not installed", "pip install 'moeprof[gpu]'")
    workload = load(target.workload)
    reason = workload.variant(target.variant).needs(catalogue.facts())
    if reason:
        raise ToolError(
            f"{workload.name}/{target.variant} cannot run here: {reason}", "moeprof list says what each needs"
        )
    if workload.resolve is unchanged:
        return ask
    worker = WorkerProcess(target.variant, WorkerSpec("serve", target), folder / inspection.LOG, ask.timeout_s)
    try:
        worker.hello()
        params = worker.ask(Prepare(target.params)).params
    finally:
        worker.close()
    return replace(ask, target=replace(target, params=params))


def metrics(counters: str) -> tuple[str, ...]:
    """The metrics to ask ncu for by name beside its set; of a list of metrics, these and the duration."""
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


def checked(ask: Ask, counters: str, tool: Tool) -> tuple[Ask, tuple[Note, ...]]:
    """With those of the metrics that the chip has, and what is to be said of the others."""
    names = ncu_query.names(tool)
    wanted = metrics(counters)
    if not names:
        said = note("metrics-unchecked", command=str(ncu_query.query(tool)))
        return (replace(ask, metrics=wanted) if ask.counters == "metrics" else ask), (said,)
    here, lacking = inspection.chosen(wanted, names)
    notes = (note("chip-lacks", names=", ".join(lacking)),) if lacking else ()
    return replace(ask, metrics=here), notes


def compiled(kernel: str) -> dict[str, Any]:
    """What the compiler said of a kernel of our own CUDA sources as they were built for this GPU: registers and spills; else nothing."""
    from moeprof.workloads.common import nvcc

    first = next(iter(tools.gpus()), None)
    if first is None or not first.compute_capability:
        return {}
    major, _, minor = first.compute_capability.partition(".")
    try:
        return nvcc.said_of(kernel, (int(major), int(minor)))
    except MoeprofError:  # no nvcc, or one that does not run: then nothing of ours was built
        return {}


def choose(output: Path | None, force: bool) -> Path:
    """The final folder: ``output``, or the next free moeprof-out/inspect-NNN.

    Raises:
        UsageError: it exists and ``force`` is not given, or it is no folder of an inspection.
    """
    if output is None:
        found = (re.fullmatch(rf"{NAME}-(\d+)(\.partial)?", path.name) for path in OUTPUT.glob(f"{NAME}-*"))
        return OUTPUT / f"{NAME}-{max((int(match[1]) for match in found if match), default=0) + 1:03d}"
    if output.exists() and not force:
        raise UsageError(f"{output} exists", "choose another -o, or add --force")
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / inspection.RAW).is_file())):
        raise UsageError(f"{output} is no inspection: it is not replaced", "choose another -o")
    return output


@contextmanager
def written(final: Path) -> Iterator[Path]:
    """A folder beside ``final`` that takes its name at the end, and is gone where that is not reached."""
    partial = final.with_name(final.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
