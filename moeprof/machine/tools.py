"""Find nsys, ncu and nvcc, and what they can do here.

A tool is searched for where the user says (an option, then the environment), on PATH, then in the usual folders. The
nsys in the host folder of Nsight Compute counts too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.errors import ToolError

VARIABLES = {"nsys": "MOEPROF_NSYS", "ncu": "MOEPROF_NCU", "nvcc": "MOEPROF_NVCC"}
FOLDERS = {
    "nsys": (
        "/opt/nvidia/nsight-systems/*/bin", "/opt/nvidia/nsight-systems/*/target-linux-x64", "/usr/local/cuda*/bin",
        "/opt/nvidia/nsight-compute/*/host/target-linux-x64", "/usr/local/cuda*/nsight-compute-*/host/target-linux-x64",
    ),
    "ncu": ("/usr/local/cuda*/bin", "/opt/nvidia/nsight-compute/*", "/usr/local/cuda*/nsight-compute-*"),
    "nvcc": ("/usr/local/cuda*/bin",),
}  # fmt: skip
WHEELS = Path(sysconfig.get_path("purelib")) / "nvidia"
VERSION_TIMEOUT_S = 20
EXPORT_TIMEOUT_S = 1800
NO_PERMISSION = "ERR_NVGPUCTRPERM"
PERMISSION_HINT = (
    "run as root, or let all users read counters: options nvidia NVreg_RestrictProfilingToAdminUsers=0 in /etc/modprobe.d, "
    "then reload the driver (https://developer.nvidia.com/ERR_NVGPUCTRPERM)"
)


@dataclass(frozen=True)
class Tool:
    """An executable that runs: its name, where it is, and its version ("2025.3.1")."""

    name: str
    path: Path
    version: str


def find(name: str, explicit: Path | None = None) -> Tool | None:
    """The tool ``name``: the given one, or from the environment, from PATH, or from the usual folders, newest first.

    Raises:
        ToolError: the tool of the option or the environment does not exist or does not run.
    """
    path = explicit or _from_environment(name)
    if path is not None:
        return _required(name, path, "the option" if explicit else VARIABLES[name])
    for candidate in _candidates(name):
        version = _version(candidate)
        if version is not None:
            return Tool(name, candidate, version)
    return None


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(VARIABLES[name])
    return Path(value) if value else None


def _required(name: str, path: Path, origin: str) -> Tool:
    resolved = path if path.is_file() else Path(shutil.which(str(path)) or "")
    version = _version(resolved) if resolved.is_file() else None
    if version is None:
        problem = "does not run" if resolved.is_file() else "does not exist"
        raise ToolError(f"{name} at {path} (from {origin}) {problem}", f"give the path of a working {name}")
    return Tool(name, resolved, version)


def _candidates(name: str) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    if name == "nvcc":  # installed as wheels: pip install nvidia-cuda-nvcc nvidia-cuda-cccl
        yield from sorted(WHEELS.glob("cu*/bin/nvcc"), key=_natural, reverse=True)
    for pattern in FOLDERS[name]:
        root, _, rest = pattern[1:].partition("/")
        yield from (
            p / name for p in sorted(Path("/" + root).glob(rest), key=_natural, reverse=True) if (p / name).is_file()
        )


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _version(path: Path) -> str | None:
    """The version that ``path --version`` prints; None if it does not run."""
    try:
        child = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(?:version|release|Version)\s+v?(\d+(?:\.\d+)+)", child.stdout)
    return match.group(1) if child.returncode == 0 and match else None


def export_command(nsys: Tool, report: Path, target: Path) -> tuple[str, ...]:
    """The argument list that exports a report of nsys to SQLite."""
    return (str(nsys.path), "export", "--type", "sqlite", "--force-overwrite=true", "-o", str(target), str(report))


def export_report(nsys: Tool, report: Path, target: Path) -> Path:
    """Export the raw report of nsys to SQLite at ``target``.

    Raises:
        ToolError: nsys fails, for example because it is older than the report.
    """
    try:
        child = subprocess.run(
            export_command(nsys, report, target), capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"nsys {nsys.version} could not export {report}: {error}", "export it by hand") from error
    if child.returncode != 0 or not target.is_file():
        messages = (child.stderr or child.stdout).strip().splitlines()
        last = messages[-1][:160] if messages else "nothing"
        raise ToolError(
            f"nsys {nsys.version} could not export {report}; its last message: {last}",
            "a report needs the nsys that wrote it or a newer one: give it with MOEPROF_NSYS",
        )
    return target


def missing_libraries(nsys: Path) -> tuple[str, ...]:
    """Shared libraries that the report importer of nsys needs and this machine lacks: nsys then writes only a .qdstrm."""
    importer = next((p for p in _importers(nsys) if p.is_file()), None)
    if importer is None:
        return ()
    environment = dict(os.environ)
    environment["LD_LIBRARY_PATH"] = ":".join(
        filter(None, [str(importer.parent), os.environ.get("LD_LIBRARY_PATH", "")])
    )
    try:
        child = subprocess.run(
            ["ldd", importer], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.split()[0] for line in child.stdout.splitlines() if "not found" in line)


def _importers(nsys: Path) -> Iterator[Path]:
    """QdstrmImporter beside nsys or in the host folder of the same installation."""
    real = nsys.resolve()
    for folder in (real.parent, real.parent.parent, real.parent.parent.parent):
        yield from sorted(folder.glob("QdstrmImporter"))
        yield from sorted(folder.glob("host-linux*/QdstrmImporter"))


def profiling_restricted() -> bool:
    """Whether the driver denies hardware counters to this user, who is no administrator."""
    try:
        text = Path("/proc/driver/nvidia/params").read_text()
    except OSError:
        return False
    return "RmProfilingAdminOnly: 1" in text and os.geteuid() != 0
