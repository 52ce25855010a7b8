"""Rules that turn an analysis into claims with evidence. One function a rule; each stays silent unless it is sure.

``gain_ns`` is an upper bound: what the whole window would gain if the exposed or idle time in question vanished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moeprof.metrics.analysis import Analysis, Finding, Window

SHARE = 0.05  # of the window's span: a smaller cost is not worth a reader's time

Rule = Callable[[Window], Finding | None]


def find(analysis: Analysis) -> tuple[Finding, ...]:
    """Every finding of every window, the largest gain first."""
    found = [finding for window in analysis.windows for rule in RULES if (finding := rule(window)) is not None]
    return tuple(sorted(found, key=lambda f: (-f.gain_ns, f.id, f.where)))


def pageable_copy(window: Window) -> Finding | None:
    """Copies from or to pageable memory are staged by the driver and block the host."""
    cost = _exposed(window, "pageable")
    rows = [c for c in window.copies if c.memory == "pageable"]
    evidence = {"copies": sum(c.count for c in rows), "bytes": sum(c.bytes for c in rows), "exposed_ns": cost}
    claim = f"{evidence['copies']} copies use pageable host memory: {cost / 1e6:.3f} ms of them run with the GPU idle"
    return _finding(
        "pageable-copy", claim, cost, window, evidence, "pin the host buffer (pin_memory=True, cudaHostAlloc)"
    )


def same_stream_copy(window: Window) -> Finding | None:
    """A copy in the stream of the kernels cannot run beside them."""
    cost = _exposed(window, "same_stream")
    bound = min(cost, window.compute_busy_ns)
    evidence = {"exposed_ns": cost, "compute_busy_ns": window.compute_busy_ns}
    claim = f"{cost / 1e6:.3f} ms of copies run in the stream of the kernels, so nothing runs beside them"
    return _finding(
        "same-stream-copy", claim, bound, window, evidence, "copy in a stream of its own, ordered by events"
    )


def launch_bound(window: Window) -> Finding | None:
    """The device waits while the host is still inside the launch of the next operation."""
    cost, launches = window.idle.launch_ns, window.launch
    evidence = {"launch_idle_ns": cost, "kernels": launches.kernels, "api_ns_median": launches.api_ns_median}
    claim = f"the GPU waits {cost / 1e6:.3f} ms for launches that are still under way ({launches.kernels} kernels)"
    return _finding(
        "launch-bound", claim, cost, window, evidence, "capture the iteration in a CUDA graph, or fuse kernels"
    )


def sync_api(window: Window) -> Finding | None:
    """The device waits because the host was inside a synchronising call when it should have launched more."""
    cost = window.idle.sync_ns
    evidence = {"sync_idle_ns": cost, "sync_calls": window.launch.sync_calls}
    claim = f"the GPU idles {cost / 1e6:.3f} ms while the host returns from synchronising calls"
    return _finding(
        "sync-api", claim, cost, window, evidence, "remove the synchronise from the loop, or keep results on the GPU"
    )


RULES: tuple[Rule, ...] = (pageable_copy, same_stream_copy, launch_bound, sync_api)


def _exposed(window: Window, cause: str) -> int:
    return sum(copies.why_exposed.get(cause, 0) for copies in window.copies)


def _finding(
    id: str, claim: str, gain_ns: int, window: Window, evidence: Mapping[str, object], remedy: str
) -> Finding | None:
    if gain_ns < SHARE * window.span_ns or gain_ns <= 0:
        return None
    where = f"device {window.device}" + (f", {window.range} {window.instance}" if window.range else "")
    return Finding(id, claim, gain_ns, where, dict(evidence), remedy)
