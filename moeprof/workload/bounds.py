"""The models of the best possible time that a workload may name; docs/reference/metrics.md says what they mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pipeline:
    """The limit of ``stages`` pairs of compute c and transfer x: max(L c + x, c + L x).

    ``stages`` names the parameter that holds L; c and x are taken from the sequential baseline. ``ceiling`` names the
    entry of the measured ceilings (GB/s) that bounds the transfer.
    """

    stages: str
    ceiling: str
    kind: str = "pipeline"


@dataclass(frozen=True)
class Roofline:
    """The limit max(FLOPs / F, bytes / B), F and B named in the measured ceilings (TFLOP/s and GB/s); ``yardstick`` names a
    further one in TFLOP/s, what a library reaches on the bare work."""

    flops_ceiling: str
    bytes_ceiling: str
    yardstick: str = ""
    kind: str = "roofline"


@dataclass(frozen=True)
class Exchange:
    """The limit of compute c = FLOPs / F overlapped in C pieces with an exchange x = bytes / B that feeds it and takes its
    results: max(c + x / C, x). The first piece's way there and the last one's way back hide behind nothing.

    ``flops_ceiling`` and ``bytes_ceiling`` name F and B in the measured ceilings (TFLOP/s, and GB/s of the link each way);
    ``pieces`` names the parameter that holds C. Bytes are those that a rank sends, there and back.
    """

    flops_ceiling: str
    bytes_ceiling: str
    pieces: str
    kind: str = "exchange"
