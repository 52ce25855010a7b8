"""An iteration of the layer over an exchange, which runs in sequence or overlaps with compute.

An ``Exchange`` sends, a lane decides what its sends overlap with, and ``iterate`` is one iteration with any pair of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from moeprof.workloads.common.timing import delay_gpu
from moeprof.workloads.expert_parallel.layer import RankLayer

Action = Callable[[], Any]
COUNTS = 0  # channel of the counts; 1 + c: of chunk c's rows; 1 + C + c: of its results


class Exchange(Protocol):
    """Sends counts, rows and results; ``arrived(channel)`` makes the current stream wait for what other ranks send.

    On a CPU each call returns the handle to wait for.
    """

    def counts(self) -> Any: ...
    def dispatch(self, chunk: int) -> Any: ...
    def return_results(self, chunk: int) -> Any: ...
    def arrived(self, channel: int) -> None: ...


class Sequential:
    """Everything in sequence, in the stream of the caller."""

    def fork(self) -> None:
        """Nothing runs concurrently."""

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """Produce the data, then send it; the result is the token of ``wait``."""
        produce()
        transfer()

    def wait(self, token: Any) -> None:
        """Nothing to do: the stream is in order, and on a CPU the send has ended."""


class AsyncHandles:
    """On a CPU: a send runs on the threads of torch.distributed until its handle is waited for."""

    def fork(self) -> None:
        """No send is in flight."""

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """Without ``ready`` the send ends before its data are produced: the planted fault, the same at any speed."""
        if ready:
            produce()
            return transfer()
        early = transfer()
        if early is not None:
            early.wait()
        return produce()

    def wait(self, token: Any) -> None:
        """Wait until the send has ended."""
        if token is not None:
            token.wait()


class CommunicationStream:
    """On a GPU: a communication stream beside the caller's, with two events for each send."""

    def __init__(self, sends: int) -> None:
        import torch

        self.stream = torch.cuda.Stream(priority=-1)  # gets the next free SMs
        self.ready = [torch.cuda.Event() for _ in range(sends)]
        self.sent = [torch.cuda.Event() for _ in range(sends)]
        self.number = 0

    def fork(self) -> None:
        """The communication begins after all work enqueued so far."""
        import torch

        self.number = 0
        self.stream.wait_stream(torch.cuda.current_stream())

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """``produce`` here, then ``transfer`` on the communication stream. Without ``ready`` the transfer does not wait, and the
        data are surely late: the planted fault, the same at any speed."""
        import torch

        index, self.number = self.number, self.number + 1
        if not ready:
            delay_gpu("cuda")
        produce()
        if ready:
            self.ready[index].record()
            self.stream.wait_event(self.ready[index])
        with torch.cuda.stream(self.stream):
            transfer()
            self.sent[index].record()
        return self.sent[index]

    def wait(self, token: Any) -> None:
        """The stream of the caller waits; waiting for the last token joins the communication stream."""
        import torch

        torch.cuda.current_stream().wait_event(token)


Lane = Sequential | AsyncHandles | CommunicationStream


def iterate(layer: RankLayer, exchange: Exchange, lane: Lane, ready: bool = True) -> None:
    """One MoE layer: route, dispatch every chunk, compute each as it arrives, return the results, sum."""
    chunks = range(layer.layout.chunks)
    lane.fork()
    counts_token = lane.send(layer.route, exchange.counts)
    row_tokens = [lane.send(partial(layer.gather, c), partial(exchange.dispatch, c), ready) for c in chunks]
    lane.wait(counts_token)
    exchange.arrived(COUNTS)
    layer.arrange()
    result_tokens = []
    for c in chunks:
        lane.wait(row_tokens[c])
        exchange.arrived(1 + c)
        result_tokens.append(lane.send(partial(layer.experts, c), partial(exchange.return_results, c)))
    for c in chunks:
        lane.wait(result_tokens[c])
        exchange.arrived(1 + len(chunks) + c)
        layer.total(c)
