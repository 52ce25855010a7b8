"""The exchange by NCCL's or gloo's all-to-all.

The host passes the split sizes to the all-to-all. Here they are known at set-up, since the seed decides them; a server must wait
for the counts on the host. Here the counts are sent too, as data, and order the rows that arrive.
"""

from __future__ import annotations

from typing import Any

from moeprof.workloads.expert_parallel.layer import Buffers
from moeprof.workloads.expert_parallel.layout import Layout


class AllToAll:
    """The all-to-all of torch.distributed; with ``handles`` (gloo) it runs asynchronously and returns a handle."""

    def __init__(self, layout: Layout, buffers: Buffers, handles: bool) -> None:
        self.layout, self.buffers, self.handles = layout, buffers, handles

    def _send(self, out: Any, rows: Any, splits: tuple[list[int], list[int]] | None = None) -> Any:
        import torch.distributed as dist

        leave, arrive = splits or (None, None)
        return dist.all_to_all_single(out, rows, arrive, leave, async_op=self.handles)

    def counts(self) -> Any:
        """Send every rank the number of rows of each chunk for each of its experts."""
        return self._send(self.buffers.counts_received, self.buffers.counts_sent)

    def dispatch(self, chunk: int) -> Any:
        """Send rows to the ranks of their experts."""
        there, here = self.layout.sent(chunk), self.layout.arrived(chunk)
        return self._send(self.buffers.received[here], self.buffers.rows[there], self.layout.splits(chunk))

    def return_results(self, chunk: int) -> Any:
        """Send results to the ranks of their tokens."""
        there, here = self.layout.sent(chunk), self.layout.arrived(chunk)
        leave, arrive = self.layout.splits(chunk)
        return self._send(self.buffers.returned[there], self.buffers.results[here], (arrive, leave))

    def arrived(self, channel: int) -> None:
        """Nothing to do: a collective that has ended has received its data."""
