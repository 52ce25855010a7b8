"""The manifest of a capture before anything ran: what was asked for, on what hardware and software."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from moeprof import __version__
from moeprof.capture.command_set import CommandSet
from moeprof.capture.plan import PACKAGES, PROGRAM, Plan
from moeprof.capture.program.name import script_of
from moeprof.machine import git, load, nvml
from moeprof.storage.json import encode
from moeprof.storage.manifest import SCHEMA_VERSION, Environment, Manifest, VariantRecord
from moeprof.workload.model import Workload


def manifest(plan: Plan) -> Manifest:
    """The manifest before anything ran."""
    workload, request = plan.workload, plan.request
    base = Manifest(
        schema_version=SCHEMA_VERSION,
        kind="workload" if workload else "program",
        name=plan.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        argv=request.argv,
        device=plan.device,
        environment=environment(plan),
        notes=plan.notes,
    )
    if request.commands is not None:
        return of_commands(base, request.commands)
    if workload is None:
        return replace(
            base,
            summary=" ".join(request.program),
            git=_git_of_program(request.program),
            variants=(VariantRecord(PROGRAM, "the user's own program", "pending"),),
        )
    names, params = [v.name for v in plan.variants], plan.params
    return replace(
        base,
        summary=workload.summary,
        shows=workload.shows,
        preset=plan.preset,
        params=params,
        seed=int(params.get("seed", 0)),
        baseline=workload.baseline if workload.baseline in names else None,
        optimized=workload.optimized if workload.optimized in names else None,
        limit=encode(workload.limit),
        git=_git(workload),
        ranks=1 if plan.team is None else plan.team.ranks,
        variants=tuple(VariantRecord(v.name, v.summary, "pending") for v in plan.variants),
    )


def of_commands(base: Manifest, commands: CommandSet) -> Manifest:
    """The manifest of commands, one variant each."""
    return replace(
        base,
        kind="commands",
        summary=f"{commands.baseline.text} against {commands.optimized.text}",
        baseline=commands.baseline.name,
        optimized=commands.optimized.name,
        unit=commands.unit,
        clock=commands.clock.text,
        variants=tuple(VariantRecord(v.name, v.text, "pending", command=v.argv) for v in commands.variants),
    )


def environment(plan: Plan) -> Environment:
    """Versions and hardware of this host as they are before the capture; of a program those of its own Python."""
    program = plan.interpreter
    packages = {name: v for name in PACKAGES if (v := _version(name)) is not None}
    if plan.workload is None:
        packages = {} if program is None else dict(program.packages)
    return Environment(
        moeprof=__version__,
        python=platform.python_version() if program is None else program.python,
        platform=f"{platform.system()} {platform.machine()}",
        cpu=load.cpu(),
        cpus=os.cpu_count() or 1,
        nsys=plan.nsys.version if plan.nsys else None,
        ncu=plan.counting.ncu.version if plan.counting else None,
        torch=None if program is None else program.packages.get("torch"),
        cuda=None if program is None else program.cuda,
        packages=packages,
        gpus_before=nvml.gpus() if plan.device == "cuda" else (),
    )


def likeness(environment: Environment) -> dict[str, str]:
    """What two hosts of one capture should have in common, by name: versions of what runs, and the GPUs."""
    gpus = Counter(gpu.name for gpu in environment.gpus_before)
    drivers = sorted({gpu.driver for gpu in environment.gpus_before if gpu.driver})
    return {
        "Python": environment.python, "platform": environment.platform, "CPU": f"{environment.cpus} of {environment.cpu}",
        "GPUs": ", ".join(f"{count} x {name}" for name, count in sorted(gpus.items())) or "none",
        "driver": ", ".join(drivers) or "none", "nsys": environment.nsys or "none", **environment.packages,
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_of_program(words: tuple[str, ...]) -> str | None:
    """The commit of the checkout that the program's script lies in, else that of the current folder."""
    script = script_of(words)
    return git.commit(Path.cwd() if script is None else script.resolve().parent)


def _git(workload: Workload) -> str | None:
    """The commit of the checkout that declares the workload, "+dirty" where it has changes; None outside of one."""
    module: Any = sys.modules.get(workload.prove.__module__)
    if module is None or not getattr(module, "__file__", None):
        return None
    return git.commit(Path(module.__file__).parent)
