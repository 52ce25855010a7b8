"""The models of the best possible time of a workload; docs/reference/metrics.md explains them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pipeline:
    """The limit of ``stages`` pairs of compute c and transfer x: max(L c + x, c + L x).

    ``stages`` names the parameter L; c and x are those of the sequential baseline. ``ceiling`` names the measured
    ceiling (GB/s) that bounds the transfer.
    """

    stages: str
    ceiling: str
    kind: str = "pipeline"


@dataclass(frozen=True)
class Roofline:
    """The limit max(FLOPs / F, bytes / B), with F and B among the measured ceilings (TFLOP/s and GB/s).

    ``yardstick`` names a further ceiling: TFLOP/s that a library reaches on the work without its surroundings.
    """

    flops_ceiling: str
    bytes_ceiling: str
    yardstick: str = ""
    kind: str = "roofline"


@dataclass(frozen=True)
class Exchange:
    """The limit max(c + x / C, x) of compute c = FLOPs / F overlapped in C pieces with an exchange x = bytes / B.

    The dispatch of the first piece and the return of the last one cannot be hidden.

    ``flops_ceiling`` and ``bytes_ceiling`` name F and B in the measured ceilings (TFLOP/s, and GB/s of the link each way);
    ``pieces`` names the parameter C. Bytes are those that a rank sends, rows and results.
    """

    flops_ceiling: str
    bytes_ceiling: str
    pieces: str
    kind: str = "exchange"
