"""How a workload times an action for its calibration and its ceilings: medians, on a GPU of CUDA graphs where asked."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

SAMPLES = 5


def seconds(action: Callable[[], object], device: str, repeats: int, graph: bool, warm_s: float = 0.0) -> float:
    """Median time of one ``action`` among ``repeats`` in a row, in seconds, after ``warm_s`` seconds of them.

    With ``graph`` the row is one CUDA graph: the time of the device alone, also where the host is slower than the action.
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
    """``repeats`` of ``action`` as one CUDA graph; the answer replays it. Raises what capturing raises: never eager instead.

    ``mode`` "thread_local" lets other threads of the process call CUDA meanwhile, as NCCL's watchdog does.
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

    def replay(
        keep: Callable[[], object] = action,
    ) -> None:  # the graph holds addresses: what action refers to must live on
        graph.replay()

    return replay


def synchronise(device: str) -> None:
    """Wait for all work of every GPU; of its own alone in a process that is one of several ranks."""
    import torch

    if device == "cuda" and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.cuda.synchronize()
    elif device == "cuda":
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)
