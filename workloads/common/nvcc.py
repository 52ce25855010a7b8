"""Build the CUDA sources of moeprof with nvcc, or report why they cannot be built.

Libraries are cached. Their name contains a hash of the source, its headers, the compiler's version, the architecture and the flags,
including ``$MOEPROF_NVCC_FLAGS``. Two processes that build one library take turns. The assembler's report of registers and spills
is stored beside the library.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import ToolError, WorkloadError
from moeprof.machine import tools
from moeprof.resources import folder
from moeprof.storage import cache
from moeprof.storage.files import locked, whole
from moeprof.workload.model import Machine

CACHE = "cuda"
FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-shared", "-Xcompiler", "-fPIC", "-Xptxas", "-v")
TIMEOUT_S = 300
TMA_CAPABILITY = (9, 0)
TMA_CUDA = 13


@dataclass(frozen=True)
class Built:
    """A library, and the assembler's report of its kernels: registers, spilled bytes and shared memory."""

    path: Path
    report: str

    def load(self) -> ctypes.CDLL:
        """Open the library."""
        return ctypes.CDLL(str(self.path))

    def usage(self, kernel: str) -> dict[str, int]:
        """Registers a thread and spilled bytes of the kernel of that name in the source; empty if the report lacks it."""
        for name, block in re.findall(
            r"Compiling entry function '(\S+)'.*?\n(.*?)(?=Compiling entry function|\Z)", self.report, flags=re.S
        ):
            if re.search(rf"\d{re.escape(kernel)}E", name):
                registers = re.search(r"Used (\d+) registers", block)
                spilled = re.search(r"(\d+) bytes spill stores", block)
                return {
                    "registers a thread": int(registers[1]) if registers else 0,
                    "spilled bytes": int(spilled[1]) if spilled else 0,
                }
        return {}


def flags() -> tuple[str, ...]:
    """The flags of nvcc: those of moeprof, then those of ``$MOEPROF_NVCC_FLAGS``."""
    return (*FLAGS, *shlex.split(os.environ.get("MOEPROF_NVCC_FLAGS", "")))


def architecture(capability: tuple[int, int]) -> str:
    """The -gencode value for a GPU; from sm_90 on with the features of that architecture alone (``sm_90a``)."""
    number = f"{capability[0]}{capability[1]}" + ("a" if capability >= TMA_CAPABILITY else "")
    return f"arch=compute_{number},code=sm_{number}"


def needs_nvcc(machine: Machine) -> str | None:
    """Why a CUDA source cannot be built on this machine, or None."""
    if not machine.cuda:
        return "needs a CUDA GPU"
    try:
        compiler = tools.find("nvcc")
    except ToolError as error:
        return error.message
    return None if compiler else "needs nvcc (install the CUDA toolkit, or set MOEPROF_NVCC)"


def needs_tma(machine: Machine) -> str | None:
    """Why the bulk-copy engine (TMA) cannot be used on this machine, or None."""
    reason = needs_nvcc(machine)
    if reason:
        return reason
    capability = tuple(int(part) for part in (machine.compute_capability or "0.0").split("."))
    if capability < TMA_CAPABILITY:
        return f"needs compute capability 9.0 for the bulk-copy engine, this GPU has {machine.compute_capability}"
    compiler = tools.find("nvcc")
    if compiler is None or int(compiler.version.split(".")[0]) < TMA_CUDA:
        return f"needs nvcc {TMA_CUDA} or later, found {compiler.version if compiler else 'none'}"
    return None


def check_launch(status: int, kernel: str) -> None:
    """Raise WorkloadError if the launcher of ``kernel`` returned a CUDA error code."""
    if status:
        raise WorkloadError(f"{kernel} failed: CUDA error {status}", "see cudaError_t in CUDA's documents")


def build(source: str, capability: tuple[int, int], nvcc: tools.Tool | None = None) -> Built:
    """The library of ``cuda/SOURCE`` for a GPU of this compute capability, from the cache or built now.

    Raises:
        ToolError: nvcc is missing.
        WorkloadError: the source does not compile; the message contains the compiler's error.
    """
    compiler = nvcc or tools.find("nvcc")
    if compiler is None:
        raise ToolError("nvcc is missing", "install the CUDA toolkit, or set MOEPROF_NVCC")
    path = folder("cuda") / source
    target = library_path(path, compiler, architecture(capability))
    report = target.with_suffix(".log")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_suffix(".lock")):
        if not target.is_file():
            _compile(compiler, path, architecture(capability), target, report)
    return Built(target, report.read_text(encoding="utf-8"))


def usage_of(kernel: str, capability: tuple[int, int]) -> dict[str, int | str]:
    """The source, registers a thread and spilled bytes of a kernel of the present sources, as built for this GPU; empty for
    any other kernel, and if it was not built.

    Raises:
        ToolError: the nvcc of the environment does not run.
    """
    compiler = tools.find("nvcc")
    if compiler is None:
        return {}
    for source in sorted(folder("cuda").glob("*.cu")):
        target = library_path(source, compiler, architecture(capability))
        report = target.with_suffix(".log")
        if target.is_file() and report.is_file():
            usage = Built(target, report.read_text(encoding="utf-8")).usage(kernel)
            if usage:
                return {"source": source.name, **usage}
    return {}


def library_path(source: Path, compiler: tools.Tool, arch: str) -> Path:
    """Where the library of a source is cached."""
    headers = sorted(source.parent.glob("*.cuh"))
    texts = (file.read_text(encoding="utf-8") for file in (source, *headers))
    digest = cache.digest(*texts, compiler.version, arch, *flags())
    return cache.folder(CACHE) / f"{source.stem}-{digest}.so"


def _compile(compiler: tools.Tool, source: Path, arch: str, target: Path, report: Path) -> None:
    """Compile ``source`` to ``target``, whole or not at all, and write the assembler's report."""
    with whole(target) as library:
        output = ["-o", str(library), str(source)]
        command = [str(compiler.path), *flags(), f"-gencode={arch}", *_libraries(compiler), *output]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise WorkloadError(
                f"nvcc did not finish {source.name} within {TIMEOUT_S} s", f"run it by hand: {' '.join(command)}"
            ) from error
        messages = child.stdout + child.stderr
        if child.returncode != 0:
            raise WorkloadError(
                f"nvcc refused {source.name}: {_first_error(messages)}", f"the command was: {' '.join(command)}"
            )
        report.write_text(messages, encoding="utf-8")


def _first_error(messages: str) -> str:
    lines = messages.splitlines() or ["it printed nothing"]
    return next((line for line in lines if "error" in line.lower()), lines[0]).strip()[:300]


def _libraries(compiler: tools.Tool) -> tuple[str, ...]:
    """Where an nvcc that was installed as a wheel has the static runtime; the nvcc of a toolkit finds it."""
    folder_beside = compiler.path.resolve().parents[1] / "lib"
    return ("-L", str(folder_beside)) if (folder_beside / "libcudart_static.a").is_file() else ()
