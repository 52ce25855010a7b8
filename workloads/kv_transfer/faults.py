"""Planted faults of kv_transfer: each is a plausible mistake that the proof must refuse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from moeprof.workload.model import Build, Params, Step


@dataclass(frozen=True)
class Fault:
    """What a variant gets wrong; all False is the true variant."""

    drop_ready: bool = False  # the copy does not wait for the compute
    stale: bool = False  # the copy sends the ring's other buffer
    zeros: bool = False  # the destination is zeroed instead of written


def _overlap(fault: Fault, params: Params, device: str) -> Step:
    from moeprof.workloads.kv_transfer.workload import build_overlap

    return build_overlap(params, device, fault)


FAULTS: dict[str, Build] = {
    "dropped-event": partial(_overlap, Fault(drop_ready=True)),
    "stale-buffer": partial(_overlap, Fault(stale=True)),
    "zeros": partial(_overlap, Fault(zeros=True)),
}
