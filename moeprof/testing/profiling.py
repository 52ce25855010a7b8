"""Record a part of a test with torch.profiler, one capture at a time. Starting a second profiler of torch ends the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moeprof.testing.errors import ProbeError
from moeprof.worker import nvtx, profiler

_state = {"primed": False}


def no_gpu() -> str:
    """Why nothing can run on a GPU here; "" where it can."""
    if find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "no CUDA GPU here"


def device_here(device: str | None) -> str:
    """The device to capture: as asked for, or the GPU where there is one.

    Raises:
        ProbeError: torch is missing, or the device is none of this machine.
    """
    if find_spec("torch") is None:
        raise ProbeError("torch is not installed: nothing can be captured", "install it, or mark the test moeprof_gpu")
    if device not in (None, "cpu", "cuda"):
        raise ProbeError(f"there is no device {device!r}", 'give "cuda" or "cpu"')
    reason = no_gpu()
    if device == "cuda" and reason:
        raise ProbeError(f"device cuda was asked for: {reason}", "mark the test moeprof_gpu, so that it skips here")
    return device or ("cpu" if reason else "cuda")


def synchronise(device: str) -> None:
    """Wait for all work of the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


@contextmanager
def recorded(device: str, out: Path) -> Iterator[None]:
    """Record the body under the range moeprof:measure and write the trace to ``out``.

    The device is idle when the range begins; what the body left running is waited for after the range has ended, so
    that no wait of the recorder's is counted. Where the body raises, nothing is written.

    Raises:
        ProbeError: a profiler of torch runs already, or the body started one.
    """
    _refuse_a_second()
    _prime(device)
    profile = _started(device)
    try:
        synchronise(device)
        with profiler.range_of(nvtx.MEASURE, None):
            yield
        synchronise(device)
    finally:
        _stop(profile)
    profile.export_chrome_trace(str(out))


def running() -> bool:
    """Whether a profiler of torch runs in this process."""
    import torch

    return bool(getattr(torch.autograd.profiler, "_is_profiler_enabled", False)) or torch.autograd._profiler_enabled()


def _refuse_a_second() -> None:
    if running():
        raise ProbeError(
            "a profiler of torch is already active in this process, and it can run only one",
            "end the other torch.profiler (or capture) before this one begins",
        )


def _started(device: str) -> Any:
    profile = profiler.profiler(device)
    try:
        profile.__enter__()
    except RuntimeError as error:
        raise ProbeError(f"torch.profiler does not start: {error}", "end other profilers of this process") from error
    return profile


def _stop(profile: Any) -> None:
    """End the recording; where somebody ended it already, ending it again would kill the process."""
    if not running():
        raise ProbeError(
            "another profiler of torch ran inside the block and ended this capture",
            "profile or capture, not both at once",
        )
    profile.__exit__(None, None, None)


def _prime(device: str) -> None:
    """The first recording of a process sets the GPU's tracing up, which takes its launches seconds: one of no interest first."""
    if device != "cuda" or _state["primed"]:
        return
    import torch

    profile = _started(device)
    torch.zeros(1, device=device).add_(1)
    torch.cuda.synchronize()
    profile.__exit__(None, None, None)
    _state["primed"] = True
