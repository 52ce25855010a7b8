"""What a rank computes: routing and send order, the order of what arrives, its experts, the weighted sum.

Rows travel once for each chosen expert. A chunk's rows leave sorted by expert, and so by rank; they arrive by sender, then by
expert, are put in the order of the experts for the grouped GEMMs, and their results go back in the order of arrival, so that they
come home in the order in which the rows left. Nothing here asks the device for a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moeprof.workload.model import Params
from moeprof.workloads.expert_parallel import layout as ep
from moeprof.workloads.expert_parallel.faults import Fault
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing


@dataclass(frozen=True)
class Buffers:
    """What travels, and where it arrives.

    rows [T K, H] leave, received [R, H] arrive; answers [R, H] leave, returned [T K, H] arrive; told [N, C, E/N]: the counts of rows
    that leave for each rank's experts, heard [N, C, E/N]: those that each rank says are on their way here.
    """

    rows: Any
    received: Any
    answers: Any
    returned: Any
    told: Any
    heard: Any

    def all(self) -> tuple[Any, ...]:
        return self.rows, self.received, self.answers, self.returned, self.told, self.heard


Make = Callable[[str, tuple[int, ...], Any], Any]  # name, shape, dtype -> an empty tensor


def buffers(params: Params, layout: ep.Layout, make: Make, shared: Make) -> Buffers:
    """The buffers of a layout; ``shared`` makes those that other ranks write, of one shape on every rank."""
    import torch

    kind, hidden = moe.dtype(params), params["hidden"]
    sent, arriving = params["tokens"] * params["topk"], layout.rows(layout.ranks.rank)
    counts = (layout.ranks.count, layout.chunks, layout.local)
    most = max(map(layout.rows, range(layout.ranks.count)))
    return Buffers(
        rows=make("rows", (sent, hidden), kind),
        received=shared("received", (most, hidden), kind)[:arriving],
        answers=make("answers", (arriving, hidden), kind),
        returned=shared("returned", (sent, hidden), kind),
        told=make("told", counts, torch.int64),
        heard=shared("heard", counts, torch.int64),
    )


class Layer:
    """The local work of one rank between the exchanges; ``it`` has this rank's own w13 [E/N, 2I, H] and w2 [E/N, H, I]."""

    def __init__(self, params: Params, it: moe.Layer, layout: ep.Layout, room: Buffers, fault: Fault) -> None:
        import torch

        self.params, self.it, self.layout, self.room, self.fault = fault.params(params), it, layout, room, fault
        tokens, topk, where = params["tokens"], params["topk"], it.x.device
        self.half = where.type == "cuda" and it.x.dtype in (torch.bfloat16, torch.float16)
        self.grouped = where.type == "cuda" and it.x.dtype == torch.bfloat16
        self.choice: Any = None
        if self.half:
            from moeprof.workloads.router.fused import Choice

            self.choice = Choice(self.params, it)
        self.positions = torch.zeros(tokens, topk, dtype=torch.int32, device=where)
        self.ids = self.choice.ids if self.half else torch.zeros_like(self.positions)
        wide = torch.promote_types(it.x.dtype, torch.float32)
        self.weights = self.choice.weights if self.half else torch.zeros(tokens, topk, dtype=wide, device=where)
        self._constants(where)
        most = max(map(sum, layout.mine))
        self.sorted = torch.zeros(most, params["hidden"], dtype=it.x.dtype, device=where)
        self.swished = torch.zeros(most, params["inner"], dtype=it.x.dtype, device=where)

    def _constants(self, where: Any) -> None:
        """Numbers, and where chunks begin: made once, since their sizes are known."""
        import torch

        layout, experts = self.layout, self.params["experts"]
        slots, arriving = self.positions.numel(), len(self.room.received)
        kind = torch.uint8 if layout.chunks * experts <= 256 else torch.int32  # one pass of the radix sort
        self.numbers = torch.arange(max(slots, arriving), dtype=torch.int64, device=where)
        self.small = torch.arange(slots, dtype=torch.int32, device=where)
        begins = torch.tensor(layout.received[:-1], dtype=torch.int64, device=where)
        sizes = torch.tensor(layout.received, dtype=torch.int64, device=where).diff()
        self.begins, self.chunk_begin = begins, begins.repeat_interleave(sizes)
        lengths = torch.tensor(layout.bounds).diff()
        self.shift = (torch.arange(layout.chunks) * experts).repeat_interleave(lengths).int().unsqueeze(1).to(where)
        self.keys = torch.arange(layout.chunks * experts, device=where).to(kind)
        self.order = torch.zeros(slots, dtype=torch.int64, device=where)
        self.source, self.home = (torch.zeros(arriving, dtype=torch.int64, device=where) for _ in range(2))
        self.ends = torch.zeros(layout.chunks, layout.local, dtype=torch.int32, device=where)

    def scratch(self) -> tuple[Any, ...]:
        """Everything that an iteration writes, but for its output."""
        chosen = (self.ids, self.weights, self.positions, self.order)
        return (*self.room.all(), *chosen, self.source, self.home, self.ends, self.sorted, self.swished)

    def route(self) -> None:
        """Choose the experts; sort the assignments by chunk and expert; count them."""
        import torch

        if self.half:
            self.choice.run()
        else:
            ids, weights = routing.route(moe.logits(self.it), self.it.bias, self.params)
            self.ids.copy_(ids)
            self.weights.copy_(weights)
        ordered, order = torch.sort((self.ids + self.shift).view(-1).to(self.keys.dtype), stable=True)
        ends = torch.searchsorted(ordered, self.keys, right=True)
        counts = torch.diff(ends, prepend=ends.new_zeros(1))
        self.room.told.copy_(counts.view(self.layout.chunks, self.layout.ranks.count, -1).transpose(0, 1))
        self.order.copy_(order)
        if self.fault.wrong_order:
            self.positions.view(-1).copy_(order)
        else:
            self.positions.view(-1).scatter_(0, order, self.small)

    def gather(self, chunk: int) -> None:
        """The rows of a chunk in the order in which they leave."""
        order = self.order[self.layout.sent(chunk)]
        if self.fault.wrong_rank:
            order = order.roll(self.layout.splits(chunk)[0][0])
        self._take(self.it.x, order, self.params["topk"], self.room.rows[self.layout.sent(chunk)])

    def arrange(self) -> None:
        """From the counts that the ranks told: where each expert's rows are among those that arrive."""
        import torch

        chunks, count, local = self.layout.chunks, self.layout.ranks.count, self.layout.local
        arrival = self.room.heard.permute(1, 0, 2).reshape(-1)  # by chunk, sender, expert
        wanted = self.room.heard.permute(1, 2, 0).reshape(-1)  # by chunk, expert, sender
        begins = (arrival.cumsum(0) - arrival).view(chunks, count, local).transpose(1, 2).reshape(-1)
        ends = wanted.cumsum(0)
        numbers = self.numbers[: len(self.source)]
        block = torch.searchsorted(ends, numbers, right=True)
        self.source.copy_(numbers + (begins - ends + wanted)[block])
        self.home.scatter_(0, self.source, numbers - self.chunk_begin)
        self.ends.copy_(ends.view(chunks, local, count)[:, :, -1] - self.begins.unsqueeze(1))

    def experts(self, chunk: int) -> None:
        """SwiGLU experts on the rows that arrived, their results in the order of arrival."""
        rows = self.layout.arrived(chunk)
        total = rows.stop - rows.start
        if not total:
            return
        self._take(self.room.received, self.source[rows], 1, self.sorted[:total])
        results = self._grouped(chunk, total) if self.grouped else self._looped(chunk)
        if self.fault.dropped_expert and self.layout.ranks.rank == 0:
            results[: self.layout.mine[chunk][0]] = 0
        self._take(results, self.home[rows], 1, self.room.answers[rows])

    def _grouped(self, chunk: int, total: int) -> Any:
        """Both GEMMs of all experts by torch's grouped_mm."""
        import torch

        from moeprof.workloads.router import glue

        w13, w2, ends = self.it.w13.transpose(1, 2), self.it.w2.transpose(1, 2), self.ends[chunk]
        gate_up = torch.nn.functional.grouped_mm(self.sorted[:total], w13, offs=ends)
        glue.swiglu(gate_up, self.swished[:total])
        return torch.nn.functional.grouped_mm(self.swished[:total], w2, offs=ends)

    def _looped(self, chunk: int) -> Any:
        """The same, expert by expert, by the sizes that the layout knows."""
        import torch

        sizes = self.layout.mine[chunk]
        parts = self.sorted[: sum(sizes)].split(sizes)
        every = zip(parts, self.it.w13, self.it.w2, strict=True)
        return torch.cat([moe.swiglu(part @ w13.t()) @ w2.t() for part, w13, w2 in every])

    def total(self, chunk: int) -> None:
        """out = the weighted sum of a token's K results, in fp32, in the order of k."""
        tokens = slice(self.layout.bounds[chunk], self.layout.bounds[chunk + 1])
        positions, weights, out = self.positions[tokens], self.weights[tokens], self.it.out[tokens]
        if self.half and self.fault == Fault():
            from moeprof.workloads.router import glue

            glue.combine(self.room.returned, positions, weights, out)
        else:
            out.copy_(self.fault.combine(self.room.returned[positions.long()], weights))

    def _take(self, source: Any, order: Any, topk: int, out: Any) -> None:
        """out [R, H] = the rows of ``source`` that ``order`` // ``topk`` names."""
        import torch

        if self.half:
            from moeprof.workloads.router import glue

            glue.gather(source, order, topk, out)
        else:
            torch.index_select(source, 0, order // topk, out=out)
