"""Time an action for a calibration or a ceiling; capture it in a CUDA graph; synchronise; delay the GPU."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

SAMPLES = 5


def seconds(action: Callable[[], object], device: str, repeats: int, graph: bool, warm_s: float = 0.0) -> float:
    """Median time of one ``action`` in seconds, of ``repeats`` in a row, after ``warm_s`` seconds of warm-up.

    With ``graph`` the row is one CUDA graph, which measures the device alone even if the host is slower.
    """
    row = captured(action, repeats) if graph else lambda: _repeat(action, repeats)
    times: list[float] = []
    while len(times) <= SAMPLES or sum(times) * repeats < warm_s:
        synchronise(device)
        start = perf_counter_ns()
        row()
        synchronise(device)
        times.append((perf_counter_ns() - start) / repeats / 1e9)
    return median(times[-SAMPLES:])


def _repeat(action: Callable[[], object], repeats: int) -> None:
    for _ in range(repeats):
        action()


def captured(action: Callable[[], object], repeats: int = 1, mode: str = "global") -> Callable[[], None]:
    """``repeats`` of ``action`` captured in one CUDA graph; the returned function replays it. A failed capture raises.

    ``mode`` "thread_local" allows other threads of the process to call CUDA during the capture, as NCCL's watchdog does.
    """
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        action()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side, capture_error_mode=mode):
        _repeat(action, repeats)

    # the graph holds addresses: what ``action`` refers to must outlive it
    def replay(keep: Callable[[], object] = action) -> None:
        graph.replay()

    return replay


def synchronise(device: str) -> None:
    """Wait for all work of every GPU; in a process that is one of several ranks, of its own GPU."""
    import torch

    if device == "cuda" and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.cuda.synchronize()
    elif device == "cuda":
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)


def delay_gpu(device: str, milliseconds: int = 20) -> None:
    """Keep the GPU busy, so that the host runs ahead: a missing event then shows at any speed of the host."""
    import torch

    if device == "cuda":
        torch.cuda._sleep(milliseconds * 2_000_000)  # cycles, at about 2 GHz
