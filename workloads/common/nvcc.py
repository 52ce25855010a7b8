"""Build the project's CUDA sources with nvcc into a cache, and say why not where that cannot be.

A library is named by the hash of its source and the headers beside it, the compiler's version, the architecture and the flags (those
of ``$MOEPROF_NVCC_FLAGS`` among them), under ``$XDG_CACHE_HOME/moeprof/cuda`` (``~/.cache`` by default). Two builders of one library wait for each other; what the assembler
says of registers and spills is kept beside it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import ToolError, WorkloadError
from moeprof.machine import tools
from moeprof.resources import folder
from moeprof.workload.model import Machine

FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-shared", "-Xcompiler", "-fPIC", "-Xptxas", "-v")
TIMEOUT_S = 300
TMA_CAPABILITY = (9, 0)
TMA_CUDA = 13


@dataclass(frozen=True)
class Built:
    """A library and what the assembler said of its kernels: registers, spilled bytes and shared memory by kernel."""

    path: Path
    report: str

    def load(self) -> ctypes.CDLL:
        """The library, opened."""
        return ctypes.CDLL(str(self.path))

    def usage(self, kernel: str) -> dict[str, int]:
        """Registers a thread and spilled bytes of a kernel, by its name in the source; empty where the report lacks it."""
        for name, block in re.findall(
            r"Compiling entry function '(\S+)'.*?\n(.*?)(?=Compiling entry function|\Z)", self.report, flags=re.S
        ):
            if re.search(rf"\d{re.escape(kernel)}E", name):
                registers, spilled = (
                    re.search(r"Used (\d+) registers", block),
                    re.search(r"(\d+) bytes spill stores", block),
                )
                return {
                    "registers a thread": int(registers[1]) if registers else 0,
                    "spilled bytes": int(spilled[1]) if spilled else 0,
                }
        return {}


def flags() -> tuple[str, ...]:
    """What nvcc is given: the project's own, then the user's."""
    return (*FLAGS, *shlex.split(os.environ.get("MOEPROF_NVCC_FLAGS", "")))


def architecture(capability: tuple[int, int]) -> str:
    """The -gencode value for a GPU: with its own features from sm_90 on."""
    number = f"{capability[0]}{capability[1]}" + ("a" if capability >= TMA_CAPABILITY else "")
    return f"arch=compute_{number},code=sm_{number}"


def missing(machine: Machine) -> str | None:
    """Why no kernel of ours can be built for this machine, or None."""
    if not machine.cuda:
        return "needs a CUDA GPU"
    try:
        found = tools.find("nvcc")
    except ToolError as error:
        return error.message
    return None if found else "needs nvcc (install the CUDA toolkit, or set MOEPROF_NVCC)"


def missing_tma(machine: Machine) -> str | None:
    """Why the bulk-copy engine cannot be used here, or None."""
    reason = missing(machine)
    if reason:
        return reason
    capability = tuple(int(part) for part in (machine.compute_capability or "0.0").split("."))
    if capability < TMA_CAPABILITY:
        return f"needs compute capability 9.0 for the bulk-copy engine, this GPU has {machine.compute_capability}"
    found = tools.find("nvcc")
    if found is None or int(found.version.split(".")[0]) < TMA_CUDA:
        return f"needs nvcc {TMA_CUDA} or later, found {found.version if found else 'none'}"
    return None


def checked(status: int, what: str) -> None:
    """Raise WorkloadError for a CUDA error code that a launcher returned."""
    if status:
        raise WorkloadError(f"{what} failed: CUDA error {status}", "see cudaError_t in CUDA's documents")


def build(source: str, capability: tuple[int, int], nvcc: tools.Tool | None = None) -> Built:
    """The library of ``cuda/SOURCE`` for a GPU of this compute capability, built or from the cache.

    Raises:
        ToolError: there is no nvcc.
        WorkloadError: the compiler refused the source; its own words are in the message.
    """
    compiler = nvcc or tools.find("nvcc")
    if compiler is None:
        raise ToolError("nvcc is missing", "install the CUDA toolkit, or set MOEPROF_NVCC")
    path = folder("cuda") / source
    target = _cached(path, compiler, architecture(capability))
    report = target.with_suffix(".log")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not target.is_file():
            _compile(compiler, path, architecture(capability), target, report)
    return Built(target, report.read_text(encoding="utf-8"))


def said_of(kernel: str, capability: tuple[int, int]) -> dict[str, int | str]:
    """What the assembler said of a kernel in the sources as they are now, where they were built for this GPU: its source,
    registers and spilled bytes; empty for a kernel that is none of ours, or was not built.

    Raises:
        ToolError: the nvcc that was named does not run.
    """
    compiler = tools.find("nvcc")
    if compiler is None:
        return {}
    for source in sorted(folder("cuda").glob("*.cu")):
        target = _cached(source, compiler, architecture(capability))
        report = target.with_suffix(".log")
        if target.is_file() and report.is_file():
            usage = Built(target, report.read_text(encoding="utf-8")).usage(kernel)
            if usage:
                return {"source": source.name, **usage}
    return {}


def _cached(source: Path, compiler: tools.Tool, arch: str) -> Path:
    headers = sorted(source.parent.glob("*.cuh"))
    text = [*(file.read_text(encoding="utf-8") for file in (source, *headers)), compiler.version, arch, *flags()]
    digest = hashlib.sha256("\0".join(text).encode()).hexdigest()[:24]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "moeprof" / "cuda" / f"{source.stem}-{digest}.so"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(compiler: tools.Tool, source: Path, arch: str, target: Path, report: Path) -> None:
    """Into a file of its own, renamed when it is whole."""
    partial = target.with_suffix(".partial")
    command = [str(compiler.path), *flags(), f"-gencode={arch}", *_libraries(compiler), "-o", str(partial), str(source)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise WorkloadError(
            f"nvcc did not finish {source.name} within {TIMEOUT_S} s", "build it by hand to see why"
        ) from error
    finally_said = ran.stdout + ran.stderr
    if ran.returncode != 0:
        partial.unlink(missing_ok=True)
        wrong = (
            [line for line in finally_said.splitlines() if "error" in line.lower()]
            or finally_said.splitlines()
            or ["nothing"]
        )
        raise WorkloadError(
            f"nvcc refused {source.name}: {wrong[0].strip()[:300]}", f"the command was: {' '.join(command)}"
        )
    report.write_text(finally_said, encoding="utf-8")
    partial.replace(target)


def _libraries(compiler: tools.Tool) -> tuple[str, ...]:
    """Where an nvcc that was installed as a wheel has its static runtime; a toolkit's own knows."""
    beside = compiler.path.resolve().parents[1] / "lib"
    return ("-L", str(beside)) if (beside / "libcudart_static.a").is_file() else ()
