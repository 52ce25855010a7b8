"""One run of a user's command with no profiler: timed from start to end, its output in a file, watched while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from moeprof.capture.child_processes import end, last_line
from moeprof.capture.command_clock import Ran
from moeprof.capture.command_set import OUT, CommandVariant
from moeprof.errors import UsageError, WorkloadError
from moeprof.machine import load, nvml
from moeprof.storage.manifest import Gpu
from moeprof.worker import region
from moeprof.worker.failures import how_it_ended

OUT_VARIABLE = "MOEPROF_OUT"  # the folder of a run, which is empty when it starts
WATCH_S = 0.5  # between two readings of the GPU while a command runs; one takes a few ms of another core
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Place:
    """Where a run leaves its files: ``out`` is its own folder, ``output`` what it prints."""

    out: Path
    output: Path

    @property
    def regions(self) -> Path:
        """Where it writes the times of its regions."""
        return self.out.with_name(f"{self.out.name}.regions")

    def emptied(self) -> Place:
        """The same place with nothing in it."""
        for folder in (self.out, self.regions):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        return self


@dataclass(frozen=True)
class Watched:
    """What the machine did while a command ran: the GPU when it drew most power, and cores that other processes kept busy."""

    gpu: Gpu | None = None
    others_cores: float | None = None


def environment(variant: CommandVariant, place: Place) -> dict[str, str]:
    """What a run of a variant has on top of moeprof's environment."""
    return variant.environment | {OUT_VARIABLE: str(place.out)}


def words(variant: CommandVariant, place: Place) -> tuple[str, ...]:
    """The words of a run, with its folder in place of ``{out}``."""
    return tuple(word.replace(OUT, str(place.out)) for word in variant.argv)


def run(variant: CommandVariant, place: Place, timeout_s: int, uses_gpu: bool) -> tuple[Ran, Watched]:
    """Run a variant once in an emptied place.

    Raises:
        UsageError: the program does not exist or cannot be started.
        WorkloadError: it failed, or ran past the time limit and was killed.
    """
    place = place.emptied()
    added = environment(variant, place) | {region.TIMES: str(place.regions)}
    reading = load.read(())
    process_ns, status, cpu_s, gpu = _timed(
        _Start(words(variant, place), added, variant.folder, place.output), timeout_s, uses_gpu
    )
    after = load.read(())
    others_cores = load.others_cores(reading, None if after is None else replace(after, own_s=cpu_s))
    if status is None:
        raise WorkloadError(
            f"{variant.name}: it ran past {timeout_s} s and was killed",
            f"allow more with --timeout, or read {place.output}",
        )
    if status:
        raise WorkloadError(
            f"{variant.name}: it ended with {how_it_ended(status)}; it last printed: {last_line(place.output)}",
            f"run it alone: {variant.text}",
        )
    return Ran(variant.name, process_ns, place.output, place.regions), Watched(gpu, others_cores)


def step(
    name: str, argv: tuple[str, ...], folder: Path | None, log: Path, timeout_s: int, added: dict[str, str]
) -> int:
    """The exit status of a command beside the variants (set-up, check), whose output goes to ``log``.

    Raises:
        UsageError: it cannot be started.
        WorkloadError: it ran past the time limit.
    """
    _, status, _, _ = _timed(_Start(argv, added, folder, log), timeout_s, uses_gpu=False)
    if status is None:
        raise WorkloadError(
            f"{name} ran past {timeout_s} s and was killed", f"allow more with --timeout, or read {log}"
        )
    return status


@dataclass(frozen=True)
class _Start:
    """A process to start; its output replaces what ``output`` contained."""

    argv: tuple[str, ...]
    added: dict[str, str]
    folder: Path | None
    output: Path

    def __call__(self) -> subprocess.Popen[bytes]:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.output.open("wb") as output:
                return subprocess.Popen(
                    self.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env=os.environ | self.added, cwd=self.folder, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UsageError(
                f"{self.argv[0]!r} cannot be started: {error.strerror or error}",
                "give a program on PATH, without a shell's syntax",
            ) from error


def _timed(start: _Start, timeout_s: int, uses_gpu: bool) -> tuple[int, int | None, float, Gpu | None]:
    """Wall time in ns, exit status (None: killed at its time limit), CPU seconds of it and its children, and the GPU's state.

    It is waited for without polling, so that the time is exact.
    """
    overdue = threading.Event()
    began = time.perf_counter_ns()
    process = start()

    def kill() -> None:
        overdue.set()
        end(process)

    clock = threading.Timer(timeout_s, kill)
    clock.start()
    watch = _GpuWatch(process.pid)
    try:
        if uses_gpu:
            watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        took_ns = time.perf_counter_ns() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    except ChildProcessError:  # reaped while it was killed
        return time.perf_counter_ns() - began, None, 0.0, None
    finally:
        clock.cancel()
        watch.stop()
        end(process)
    gpu = watch.busiest
    return took_ns, None if overdue.is_set() else process.returncode, usage.ru_utime + usage.ru_stime, gpu


@dataclass
class _GpuWatch:
    """Reads the GPU now and then while a process runs. After its end the GPU would have an idle one's clocks."""

    pid: int
    busiest: Gpu | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return once no reading is under way."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        visible = os.environ.get(VISIBLE, "").split(",")[0].strip() or None
        while not self._over.wait(WATCH_S):
            now = nvml.gpu(visible, self._tree())
            if now is not None and (self.busiest is None or (now.power_w or 0) >= (self.busiest.power_w or 0)):
                self.busiest = now

    def _tree(self) -> Collection[int]:
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return [self.pid, *(child.pid for child in process.children(recursive=True))]
        return [self.pid]
