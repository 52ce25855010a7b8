"""Planted faults of copies: pageable, tiny, in the wrong stream, too late, behind one another, too many bytes. Used by faults.py; not a command."""

from __future__ import annotations

import torch
from fault_parts import DEVICE, MIB, Step, blocking_stream, gemm, pipeline


def pageable_copy(mended: bool) -> Step:
    """The host buffer is not pinned."""
    return pipeline(32, 8, pinned=mended, side=True, early=True)


def same_stream_copy(mended: bool) -> Step:
    """The copy runs in the stream of the products."""
    return pipeline(48, 8, pinned=True, side=mended, early=True)


def late_issue(mended: bool) -> Step:
    """The copy is issued only when the products have ended."""
    return pipeline(48, 8, pinned=True, side=True, early=mended)


def link_bound(mended: bool) -> Step:
    """The copy takes far longer than the products it hides under; mended it moves a quarter of the bytes."""
    return pipeline(24 if mended else 96, 3, pinned=True, side=True, early=True)


def legacy_copy(mended: bool) -> Step:
    """The copy's stream waits for the legacy default stream."""
    return pipeline(48, 8, pinned=True, side=True, early=True, stream=None if mended else blocking_stream())


def tiny_copies(mended: bool) -> Step:
    """Hundreds of copies of 4 KiB where one would do."""
    host, there = torch.empty(400, 1024, pin_memory=True), torch.empty(400, 1024, device=DEVICE)
    work = gemm(4096)

    def step() -> None:
        if mended:
            there.copy_(host, non_blocking=True)
        else:
            for a, b in zip(there, host, strict=True):
                a.copy_(b, non_blocking=True)
        for _ in range(8):
            work()

    return step


def copy_engine_contention(mended: bool) -> Step:
    """A small copy that the products wait for is queued behind a bulk copy of the same direction."""
    bulk, urgent = (
        torch.empty(96 * MIB, dtype=torch.uint8, pin_memory=True),
        torch.empty(8 * MIB, dtype=torch.uint8, pin_memory=True),
    )
    bulk_there, urgent_there = (torch.empty(t.shape, dtype=t.dtype, device=DEVICE) for t in (bulk, urgent))
    streams, work, main = [torch.cuda.Stream(), torch.cuda.Stream()], gemm(4096), torch.cuda.current_stream()
    pairs = [(bulk_there, bulk, streams[0]), (urgent_there, urgent, streams[1])]

    def step() -> None:
        for there, host, stream in reversed(pairs) if mended else pairs:
            stream.wait_stream(streams[1] if mended and stream is streams[0] else main)
            with torch.cuda.stream(stream):
                there.copy_(host, non_blocking=True)
        main.wait_stream(streams[1])
        for _ in range(12):
            work()
        main.wait_stream(streams[0])

    return step
