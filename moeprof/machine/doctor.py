"""What this machine can do, what is missing, and how to mend it. Each check is one line: found, status, mend."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeprof.errors import ToolError
from moeprof.machine import launcher, tools
from moeprof.machine.launcher import RANKS_ON_CPU
from moeprof.machine.tools import NO_PERMISSION, PERMISSION_HINT, Tool
from moeprof.storage.manifest import Gpu

FREE_BYTES = 2 << 30  # a capture of a long run, its raw report and its export
TORCH_TIMEOUT_S = 120
DEBIAN_PACKAGES = {"libdw": "libdw1", "libelf": "libelf1", "libbz2": "libbz2-1.0", "liblzma": "liblzma5"}

Status = Literal["ok", "degraded", "missing"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(nsys: Path | None, ncu: Path | None, output: Path) -> tuple[Check, ...]:
    """Look at everything that a capture needs; nothing is changed, nothing runs on the GPU."""
    gpus = tools.gpus()
    torch = _torch(bool(gpus))
    return (
        _gpu(gpus),
        _busy(gpus),
        torch,
        _ranks(gpus, torch),
        _nsys(nsys),
        _ncu(ncu),
        _permission(bool(gpus)),
        _tool("nvcc", None, "custom CUDA kernels are not built here", "install the CUDA toolkit, or set MOEPROF_NVCC"),
        _disk(output),
    )


def _gpu(gpus: tuple[Gpu, ...]) -> Check:
    if not gpus:
        return Check(
            "GPU",
            "missing",
            "no NVIDIA GPU or driver; workloads run on the CPU",
            "on a GPU machine: install the driver",
        )
    names = ", ".join(f"{g.name} (compute capability {g.compute_capability or '-'})" for g in gpus)
    return Check("GPU", "ok", f"{names}, driver {gpus[0].driver or '-'}")


def _busy(gpus: tuple[Gpu, ...]) -> Check:
    busy = [g for g in gpus if g.other_processes]
    if not busy:
        return Check("other processes", "ok", "none on the GPU" if gpus else "no GPU")
    found = ", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)
    return Check(
        "other processes",
        "degraded",
        found,
        "times will be disturbed: end them, or choose a GPU with CUDA_VISIBLE_DEVICES",
    )


def _torch(has_gpu: bool) -> Check:
    """Asked in a process of its own: importing torch here takes seconds and may fail in many ways."""
    if importlib.util.find_spec("torch") is None:
        return Check(
            "torch",
            "missing",
            "not installed; only recorded captures and traces can be shown",
            "pip install 'moeprof[gpu]'",
        )
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("torch", "degraded", f"did not import within {TORCH_TIMEOUT_S} s", "run: python -c 'import torch'")
    if ran.returncode != 0:
        return Check(
            "torch", "degraded", f"does not import: {ran.stderr.strip().splitlines()[-1][:120]}", "reinstall torch"
        )
    version, cuda, available = ran.stdout.split()
    if has_gpu and available != "True":
        return Check(
            "torch",
            "degraded",
            f"{version} sees no GPU",
            "install the CUDA build that fits the driver: https://pytorch.org",
        )
    return Check("torch", "ok", f"{version}" + (f" with CUDA {cuda}" if available == "True" else ", CPU"))


def _ranks(gpus: tuple[Gpu, ...], torch: Check) -> Check:
    """How many ranks a workload with ranks has here, and through what they communicate."""
    if torch.status == "missing":
        return Check("ranks", "missing", "torch is not installed", torch.mend)
    found = launcher.place(os.environ)
    launched = f"; {found.launcher} started rank {found.rank} of {found.ranks}" if found else ""
    if not gpus:
        return Check("ranks", "ok", f"on the CPU through gloo, {RANKS_ON_CPU} unless --nproc says otherwise{launched}")
    links = " linked directly" if tools.linked() else "" if len(gpus) == 1 else " not linked directly (GPU 0 and 1)"
    return Check("ranks", "ok", f"up to {len(gpus)}, one a GPU, through NCCL{links and ';' + links}{launched}")


def _tool(name: str, explicit: Path | None, without: str, mend: str) -> Check:
    return _found(name, explicit, without, mend)[0]


def _found(name: str, explicit: Path | None, without: str, mend: str) -> tuple[Check, Tool | None]:
    try:
        tool = tools.find(name, explicit)
    except ToolError as error:
        return Check(name, "missing", error.message, error.hint), None
    if tool is None:
        return Check(name, "missing", f"not found; {without}", mend), None
    return Check(name, "ok", f"{tool.version} at {tool.path}"), tool


def _nsys(explicit: Path | None) -> Check:
    check, tool = _found(
        "nsys",
        explicit,
        "traces are collected with torch.profiler",
        "install Nsight Systems, or give --nsys or MOEPROF_NSYS",
    )
    lacking = tools.missing_libraries(tool.path) if tool else ()
    if not lacking:
        return check
    packages = sorted(
        {
            DEBIAN_PACKAGES[stem]
            for library in lacking
            if (stem := library.partition(".so")[0].rstrip("-0123456789.")) in DEBIAN_PACKAGES
        }
    )
    install = f"apt install {' '.join(packages)}" if packages else "install them"
    return Check(
        "nsys",
        "degraded",
        f"{check.found}, but its importer lacks {', '.join(lacking)}: it will leave a .qdstrm and no report",
        install,
    )


def _ncu(explicit: Path | None) -> Check:
    return _tool("ncu", explicit, "no hardware counters", "install Nsight Compute, or give --ncu or MOEPROF_NCU")


def _permission(has_gpu: bool) -> Check:
    if not has_gpu:
        return Check("counter permission", "ok", "no GPU")
    if tools.profiling_restricted():
        return Check(
            "counter permission",
            "degraded",
            f"the driver keeps counters from this user ({NO_PERMISSION})",
            PERMISSION_HINT,
        )
    return Check("counter permission", "ok", "counters may be read")


def _disk(output: Path) -> Check:
    folder = next((p for p in (output, *output.resolve().parents) if p.is_dir()), Path())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {output}"
    return (
        Check("disk", "ok", found)
        if free >= FREE_BYTES
        else Check("disk", "degraded", found, "free some space, or choose another -o")
    )


def text(checks: tuple[Check, ...]) -> str:
    """One line a check, its mend below it where there is one."""
    width = max(len(c.name) for c in checks)
    lines = []
    for check in checks:
        lines.append(
            f"{check.status.upper() if check.status != 'ok' else 'OK':<9} {check.name:<{width}}  {check.found}"
        )
        if check.mend and check.status != "ok":
            lines.append(f"{'':<9} {'':<{width}}  -> {check.mend}")
    return "\n".join(lines)
