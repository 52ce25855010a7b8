"""What this machine can do, what is missing, and how to fix it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeprof.errors import ToolError
from moeprof.machine import launcher, nvml, tools
from moeprof.machine.launcher import RANKS_ON_CPU
from moeprof.machine.tools import NO_PERMISSION, PERMISSION_HINT, Tool
from moeprof.storage.manifest import Gpu
from moeprof.units import DASH

FREE_BYTES = 2 << 30  # enough for a capture of a long run, its raw report and its export
TORCH_TIMEOUT_S = 120
DEBIAN_PACKAGES = {"libdw": "libdw1", "libelf": "libelf1", "libbz2": "libbz2-1.0", "liblzma": "liblzma5"}

Status = Literal["ok", "degraded", "missing", "absent"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked: its state, what was found, and what to do if it is not ok.

    A check is "absent" where there is nothing to check, such as the processes on a GPU where there is none.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(
    nsys: Path | None, ncu: Path | None, output: Path, progress: Callable[[str], None] = lambda _: None
) -> tuple[Check, ...]:
    """Check everything that a capture needs, without changing anything and without running anything on the GPU.

    Args:
        nsys, ncu: the tools to check; None: those that a capture would find.
        output: the folder whose disk is checked.
        progress: receives the name of what is checked next; torch takes seconds to import.
    """
    progress("GPU")
    gpus = nvml.gpus()
    progress("torch")
    torch = _torch(bool(gpus))
    progress("nsys, ncu, nvcc")
    return (
        _gpu(gpus),
        _busy(gpus),
        torch,
        _ranks(gpus, torch),
        _nsys(nsys),
        _ncu(ncu),
        _permission(bool(gpus)),
        _located("nvcc", None, "CUDA kernels cannot be built", "install the CUDA toolkit, or set MOEPROF_NVCC")[0],
        _disk(output),
    )


def _gpu(gpus: tuple[Gpu, ...]) -> Check:
    if not gpus:
        return Check(
            "GPU",
            "missing",
            "no NVIDIA GPU or no driver; workloads run on the CPU",
            "on a machine with a GPU: install the driver",
        )
    names = ", ".join(f"{g.name} (compute capability {g.compute_capability or DASH})" for g in gpus)
    return Check("GPU", "ok", f"{names}, driver {gpus[0].driver or DASH}")


def _busy(gpus: tuple[Gpu, ...]) -> Check:
    busy = [g for g in gpus if g.other_processes]
    if not busy:
        return (
            Check("other processes", "ok", "none on the GPU") if gpus else Check("other processes", "absent", "no GPU")
        )
    counts = ", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)
    return Check(
        "other processes",
        "degraded",
        counts,
        "they disturb the times: end them, or use another GPU (CUDA_VISIBLE_DEVICES)",
    )


def _torch(has_gpu: bool) -> Check:
    """Import torch in a child process: it takes seconds and may fail in many ways."""
    if importlib.util.find_spec("torch") is None:
        return Check(
            "torch",
            "missing",
            "not installed: moeprof shows captures and traces, but cannot capture workloads",
            "pip install 'moeprof[gpu]'",
        )
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("torch", "degraded", f"did not import within {TORCH_TIMEOUT_S} s", "run: python -c 'import torch'")
    if child.returncode != 0:
        messages = child.stderr.strip().splitlines()
        reason = messages[-1][:120] if messages else f"exit status {child.returncode}"
        return Check("torch", "degraded", f"does not import: {reason}", "reinstall torch")
    version, cuda, available = child.stdout.split()
    if has_gpu and available != "True":
        return Check(
            "torch",
            "degraded",
            f"{version} finds no GPU",
            "install the CUDA build that fits the driver: https://pytorch.org",
        )
    return Check("torch", "ok", f"{version}" + (f" with CUDA {cuda}" if available == "True" else ", CPU"))


def _ranks(gpus: tuple[Gpu, ...], torch: Check) -> Check:
    """How many ranks a workload can have here, and how they communicate."""
    if torch.status == "missing":
        return Check("ranks", "missing", "torch is not installed", torch.mend)
    place = launcher.place(os.environ)
    launched = f"; {place.launcher} started rank {place.rank} of {place.ranks}" if place else ""
    if not gpus:
        return Check(
            "ranks", "ok", f"on the CPU through gloo, by default {RANKS_ON_CPU} (--nproc changes it){launched}"
        )
    links = "" if len(gpus) == 1 else "; linked directly" if nvml.linked() else "; not linked directly (GPU 0 and 1)"
    return Check("ranks", "ok", f"up to {len(gpus)}, one per GPU, through NCCL{links}{launched}")


def _located(name: str, explicit: Path | None, without: str, mend: str) -> tuple[Check, Tool | None]:
    """The check of a tool, and the tool. ``without``: what is lost if it is missing."""
    try:
        tool = tools.find(name, explicit)
    except ToolError as error:
        return Check(name, "missing", error.message, error.hint), None
    if tool is None:
        return Check(name, "missing", f"not found; {without}", mend), None
    return Check(name, "ok", f"{tool.version} at {tool.path}"), tool


def _nsys(explicit: Path | None) -> Check:
    check, tool = _located(
        "nsys",
        explicit,
        "traces are collected with torch.profiler",
        "install Nsight Systems, or give --nsys or MOEPROF_NSYS",
    )
    libraries = tools.missing_libraries(tool.path) if tool else ()
    if not libraries:
        return check
    stems = {library.partition(".so")[0].rstrip("-0123456789.") for library in libraries}
    packages = sorted(DEBIAN_PACKAGES[stem] for stem in stems & DEBIAN_PACKAGES.keys())
    install = f"apt install {' '.join(packages)}" if packages else "install them"
    return Check(
        "nsys",
        "degraded",
        f"{check.found}, but its importer lacks {', '.join(libraries)}: nsys will write a .qdstrm and no report",
        install,
    )


def _ncu(explicit: Path | None) -> Check:
    fix = "install Nsight Compute, or give --ncu or MOEPROF_NCU"
    return _located("ncu", explicit, "hardware counters are not available", fix)[0]


def _permission(has_gpu: bool) -> Check:
    if not has_gpu:
        return Check("counter permission", "absent", "no GPU")
    if tools.profiling_restricted():
        return Check(
            "counter permission",
            "degraded",
            f"the driver denies this user hardware counters ({NO_PERMISSION})",
            PERMISSION_HINT,
        )
    return Check("counter permission", "ok", "this user may read hardware counters")


def _disk(output: Path) -> Check:
    folder = next((p for p in (output, *output.resolve().parents) if p.is_dir()), Path())
    free = shutil.disk_usage(folder).free
    amount = f"{free / 1e9:.1f} GB free for {output}"
    if free < FREE_BYTES:
        return Check("disk", "degraded", amount, "free some space, or choose another -o")
    return Check("disk", "ok", amount)
