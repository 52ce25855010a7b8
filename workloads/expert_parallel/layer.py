"""What a rank computes: routing and send order, the order of arrival, its experts, the weighted sum.

A row is sent once for each chosen expert. The rows of a chunk leave sorted by expert, hence by rank. They arrive sorted by sender,
then by expert, and are reordered by expert for the grouped GEMMs. Their results return in the order of arrival, so that they
arrive in the order in which the rows left. No value is read back from the device.
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
    """What a rank sends and receives.

    rows [T K, H] are sent, received [R, H] arrive; results [R, H] are sent, returned [T K, H] arrive. counts_sent [N, C, E/N]: rows
    that leave for the experts of each rank; counts_received [N, C, E/N]: rows that each rank sends to this one.
    """

    rows: Any
    received: Any
    results: Any
    returned: Any
    counts_sent: Any
    counts_received: Any

    def all(self) -> tuple[Any, ...]:
        return self.rows, self.received, self.results, self.returned, self.counts_sent, self.counts_received


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
        results=make("results", (arriving, hidden), kind),
        returned=shared("returned", (sent, hidden), kind),
        counts_sent=make("counts_sent", counts, torch.int64),
        counts_received=shared("counts_received", counts, torch.int64),
    )


class RankLayer:
    """The local work of one rank between the exchanges; ``it`` has this rank's own w13 [E/N, 2I, H] and w2 [E/N, H, I]."""

    def __init__(self, params: Params, layer: moe.Layer, layout: ep.Layout, buffers: Buffers, fault: Fault) -> None:
        import torch

        self.params, self.layer, self.layout, self.buffers, self.fault = (
            fault.params(params),
            layer,
            layout,
            buffers,
            fault,
        )
        tokens, topk, device = params["tokens"], params["topk"], layer.x.device
        self.half = device.type == "cuda" and layer.x.dtype in (torch.bfloat16, torch.float16)
        self.grouped = device.type == "cuda" and layer.x.dtype == torch.bfloat16
        self.choice: Any = None
        if self.half:
            from moeprof.workloads.router.fused import Choice

            self.choice = Choice(self.params, layer)
        self.positions = torch.zeros(tokens, topk, dtype=torch.int32, device=device)
        self.ids = self.choice.ids if self.half else torch.zeros_like(self.positions)
        wide = torch.promote_types(layer.x.dtype, torch.float32)
        self.weights = self.choice.weights if self.half else torch.zeros(tokens, topk, dtype=wide, device=device)
        self._constants(device)
        most = max(map(sum, layout.expert_rows))
        self.sorted = torch.zeros(most, params["hidden"], dtype=layer.x.dtype, device=device)
        self.swished = torch.zeros(most, params["inner"], dtype=layer.x.dtype, device=device)

    def _constants(self, device: Any) -> None:
        """Numbers, and where chunks begin: made once, since their sizes are known."""
        import torch

        layout, experts = self.layout, self.params["experts"]
        slots, arriving = self.positions.numel(), len(self.buffers.received)
        kind = torch.uint8 if layout.chunks * experts <= 256 else torch.int32  # one pass of the radix sort
        self.numbers = torch.arange(max(slots, arriving), dtype=torch.int64, device=device)
        self.small = torch.arange(slots, dtype=torch.int32, device=device)
        begins = torch.tensor(layout.received[:-1], dtype=torch.int64, device=device)
        sizes = torch.tensor(layout.received, dtype=torch.int64, device=device).diff()
        self.begins, self.chunk_begin = begins, begins.repeat_interleave(sizes)
        lengths = torch.tensor(layout.bounds).diff()
        self.shift = (torch.arange(layout.chunks) * experts).repeat_interleave(lengths).int().unsqueeze(1).to(device)
        self.keys = torch.arange(layout.chunks * experts, device=device).to(kind)
        self.order = torch.zeros(slots, dtype=torch.int64, device=device)
        self.source, self.home = (torch.zeros(arriving, dtype=torch.int64, device=device) for _ in range(2))
        self.ends = torch.zeros(layout.chunks, layout.local, dtype=torch.int32, device=device)

    def scratch(self) -> tuple[Any, ...]:
        """Everything that an iteration writes, but for its output."""
        chosen = (self.ids, self.weights, self.positions, self.order)
        return (*self.buffers.all(), *chosen, self.source, self.home, self.ends, self.sorted, self.swished)

    def route(self) -> None:
        """Choose the experts; sort the assignments by chunk and expert; count them."""
        import torch

        if self.half:
            self.choice.run()
        else:
            ids, weights = routing.route(moe.logits(self.layer), self.layer.bias, self.params)
            self.ids.copy_(ids)
            self.weights.copy_(weights)
        ordered, order = torch.sort((self.ids + self.shift).view(-1).to(self.keys.dtype), stable=True)
        ends = torch.searchsorted(ordered, self.keys, right=True)
        counts = torch.diff(ends, prepend=ends.new_zeros(1))
        self.buffers.counts_sent.copy_(counts.view(self.layout.chunks, self.layout.ranks.count, -1).transpose(0, 1))
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
        self._take(self.layer.x, order, self.params["topk"], self.buffers.rows[self.layout.sent(chunk)])

    def arrange(self) -> None:
        """From the counts of all ranks: where the rows of each expert are among those that arrive."""
        import torch

        chunks, count, local = self.layout.chunks, self.layout.ranks.count, self.layout.local
        by_sender = self.buffers.counts_received.permute(1, 0, 2).reshape(-1)  # by chunk, sender, expert
        by_expert = self.buffers.counts_received.permute(1, 2, 0).reshape(-1)  # by chunk, expert, sender
        begins = (by_sender.cumsum(0) - by_sender).view(chunks, count, local).transpose(1, 2).reshape(-1)
        ends = by_expert.cumsum(0)
        numbers = self.numbers[: len(self.source)]
        block = torch.searchsorted(ends, numbers, right=True)
        self.source.copy_(numbers + (begins - ends + by_expert)[block])
        self.home.scatter_(0, self.source, numbers - self.chunk_begin)
        self.ends.copy_(ends.view(chunks, local, count)[:, :, -1] - self.begins.unsqueeze(1))

    def experts(self, chunk: int) -> None:
        """SwiGLU experts on the rows that arrived, their results in the order of arrival."""
        rows = self.layout.arrived(chunk)
        total = rows.stop - rows.start
        if not total:
            return
        self._take(self.buffers.received, self.source[rows], 1, self.sorted[:total])
        results = self._grouped(chunk, total) if self.grouped else self._looped(chunk)
        if self.fault.dropped_expert and self.layout.ranks.rank == 0:
            results[: self.layout.expert_rows[chunk][0]] = 0
        self._take(results, self.home[rows], 1, self.buffers.results[rows])

    def _grouped(self, chunk: int, total: int) -> Any:
        """Both GEMMs of all experts by torch's grouped_mm."""
        import torch

        from moeprof.workloads.router import glue

        w13, w2, ends = self.layer.w13.transpose(1, 2), self.layer.w2.transpose(1, 2), self.ends[chunk]
        gate_up = torch.nn.functional.grouped_mm(self.sorted[:total], w13, offs=ends)
        glue.swiglu(gate_up, self.swished[:total])
        return torch.nn.functional.grouped_mm(self.swished[:total], w2, offs=ends)

    def _looped(self, chunk: int) -> Any:
        """The same, expert by expert, by the sizes that the layout knows."""
        import torch

        sizes = self.layout.expert_rows[chunk]
        parts = self.sorted[: sum(sizes)].split(sizes)
        every = zip(parts, self.layer.w13, self.layer.w2, strict=True)
        return torch.cat([moe.swiglu(part @ w13.t()) @ w2.t() for part, w13, w2 in every])

    def total(self, chunk: int) -> None:
        """out = the weighted sum of a token's K results, in fp32, in the order of k."""
        tokens = slice(self.layout.bounds[chunk], self.layout.bounds[chunk + 1])
        positions, weights, out = self.positions[tokens], self.weights[tokens], self.layer.out[tokens]
        if self.half and self.fault == Fault():
            from moeprof.workloads.router import glue

            glue.combine(self.buffers.returned, positions, weights, out)
        else:
            out.copy_(self.fault.combine(self.buffers.returned[positions.long()], weights))

    def _take(self, source: Any, order: Any, topk: int, out: Any) -> None:
        """out [R, H] = the rows of ``source`` that ``order`` // ``topk`` names."""
        import torch

        if self.half:
            from moeprof.workloads.router import glue

            glue.gather(source, order, topk, out)
        else:
            torch.index_select(source, 0, order // topk, out=out)
