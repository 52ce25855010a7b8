"""How rows travel, and beside what: NCCL's or gloo's all-to-all, in sequence or on a stream of its own.

An exchange has ``counts()``, ``dispatch(chunk)`` and ``give_back(chunk)``, which send, and ``arrived(channel)``, which makes the
current stream wait for what the other ranks send; a lane decides beside what they run. ``iterate`` is one iteration of any pair.

The split sizes that the host gives to the all-to-all are those of the set-up: the seed decides them. Serving does not know them
and must wait for the counts on the host; here the counts travel too, as data, and order the rows that arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from moeprof.workloads.common.timing import delay_gpu
from moeprof.workloads.expert_parallel.layer import Buffers, Layer
from moeprof.workloads.expert_parallel.layout import Layout

Action = Callable[[], Any]
COUNTS = 0  # channel of the counts; 1 + c: of chunk c's rows; 1 + C + c: of its results


class Exchange(Protocol):
    """What sends; on a CPU each sending answers what to wait for."""

    def counts(self) -> Any: ...
    def dispatch(self, chunk: int) -> Any: ...
    def give_back(self, chunk: int) -> Any: ...
    def arrived(self, channel: int) -> None: ...


class Collectives:
    """torch.distributed's all-to-all; ``handles`` where it runs beside the caller (gloo), who then waits for it."""

    def __init__(self, layout: Layout, room: Buffers, handles: bool) -> None:
        self.layout, self.room, self.handles = layout, room, handles

    def _send(self, out: Any, rows: Any, splits: tuple[list[int], list[int]] | None = None) -> Any:
        import torch.distributed as dist

        leave, arrive = splits or (None, None)
        return dist.all_to_all_single(out, rows, arrive, leave, async_op=self.handles)

    def counts(self) -> Any:
        """Tell every rank how many rows of each chunk are for each of its experts."""
        return self._send(self.room.heard, self.room.told)

    def dispatch(self, chunk: int) -> Any:
        """Rows to the ranks of their experts."""
        there, here = self.layout.sent(chunk), self.layout.arrived(chunk)
        return self._send(self.room.received[here], self.room.rows[there], self.layout.splits(chunk))

    def give_back(self, chunk: int) -> Any:
        """Results to the ranks of their tokens."""
        there, here = self.layout.sent(chunk), self.layout.arrived(chunk)
        leave, arrive = self.layout.splits(chunk)
        return self._send(self.room.returned[there], self.room.answers[here], (arrive, leave))

    def arrived(self, channel: int) -> None:
        """A collective has arrived when it has ended."""


class InTurn:
    """One after the other, in the caller's stream."""

    def fork(self) -> None:
        """Nothing runs beside."""

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """Make what is to be sent and send it; the answer is what ``wait`` takes."""
        produce()
        transfer()

    def wait(self, token: Any) -> None:
        """The stream's order does; on a CPU it has ended."""


class Handles:
    """On a CPU: a sending runs on the threads of torch.distributed until its handle is waited for."""

    def fork(self) -> None:
        """Nothing is open."""

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """Without ``ready`` the sending ends before what it sends is made: the planted fault, the same at any speed."""
        if ready:
            produce()
            return transfer()
        early = transfer()
        if early is not None:
            early.wait()
        return produce()

    def wait(self, token: Any) -> None:
        """Until what ``send`` began has ended."""
        if token is not None:
            token.wait()


class Beside:
    """On a GPU: a communication stream beside the caller's, an event each way a sending."""

    def __init__(self, sendings: int) -> None:
        import torch

        self.stream = torch.cuda.Stream(priority=-1)  # waits for no SM longer than it must
        self.ready = [torch.cuda.Event() for _ in range(sendings)]
        self.sent = [torch.cuda.Event() for _ in range(sendings)]
        self.number = 0

    def fork(self) -> None:
        """The communication begins after all that was enqueued before."""
        import torch

        self.number = 0
        self.stream.wait_stream(torch.cuda.current_stream())

    def send(self, produce: Action, transfer: Action, ready: bool = True) -> Any:
        """``produce`` here, then ``transfer`` on the communication stream; without ``ready`` it does not wait, and what is produced
        is surely late: the planted fault, the same at any speed."""
        import torch

        at, self.number = self.number, self.number + 1
        if not ready:
            delay_gpu("cuda")
        produce()
        if ready:
            self.ready[at].record()
            self.stream.wait_event(self.ready[at])
        with torch.cuda.stream(self.stream):
            transfer()
            self.sent[at].record()
        return self.sent[at]

    def wait(self, token: Any) -> None:
        """The caller's stream waits; the last token's wait joins the communication stream."""
        import torch

        torch.cuda.current_stream().wait_event(token)


Lane = InTurn | Handles | Beside


def iterate(layer: Layer, exchange: Exchange, lane: Lane, ready: bool = True) -> None:
    """One MoE layer: route, dispatch every chunk, compute each as it arrives, give back, sum."""
    chunks = range(layer.layout.chunks)
    lane.fork()
    told = lane.send(layer.route, exchange.counts)
    sent = [lane.send(partial(layer.gather, c), partial(exchange.dispatch, c), ready) for c in chunks]
    lane.wait(told)
    exchange.arrived(COUNTS)
    layer.arrange()
    back = []
    for c in chunks:
        lane.wait(sent[c])
        exchange.arrived(1 + c)
        back.append(lane.send(partial(layer.experts, c), partial(exchange.give_back, c)))
    for c in chunks:
        lane.wait(back[c])
        exchange.arrived(1 + len(chunks) + c)
        layer.total(c)
