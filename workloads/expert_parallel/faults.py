"""Planted faults of expert_parallel: each is a plausible mistake that the proof of some rank must refuse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from moeprof.workload.model import Build, Params, Step
from moeprof.workloads.router import faults


@dataclass(frozen=True)
class Fault(faults.Fault):
    """What a variant gets wrong; all False is the true variant. Of the faults of the router it uses those of weights and combine."""

    wrong_rank: bool = False  # rows go to the next rank instead of the expert's own (needs two ranks)
    dropped_expert: bool = False  # the rows of expert 0 are lost
    missing_event: bool = False  # a chunk is sent before its rows are there
    missing_signal: bool = False  # a chunk is read before the other ranks' rows are there (peer_copy, two ranks)
    wrong_order: bool = False  # results are summed in the order of sending, not of the tokens


def _overlap(fault: Fault, params: Params, device: str) -> Step:
    from moeprof.workloads.expert_parallel.workload import build_overlap

    return build_overlap(params, device, fault)


def _peer_copy(fault: Fault, params: Params, device: str) -> Step:
    from moeprof.workloads.expert_parallel.workload import build_peer_copy

    return build_peer_copy(params, device, fault)


TWO_RANKS = ("wrong-rank", "missing-signal")  # cannot occur on one
ON_PEERS = ("missing-signal",)  # needs CUDA and linked GPUs

FAULTS: dict[str, Build] = {
    "wrong-rank": partial(_overlap, Fault(wrong_rank=True)),
    "dropped-expert": partial(_overlap, Fault(dropped_expert=True)),
    "missing-event": partial(_overlap, Fault(missing_event=True)),
    "missing-signal": partial(_peer_copy, Fault(missing_signal=True)),
    "wrong-order": partial(_overlap, Fault(wrong_order=True)),
    "not-renormalised": partial(_overlap, Fault(unnormalised=True)),
    "bf16-combine": partial(_overlap, Fault(bf16_combine=True)),
    "zeros": partial(_overlap, Fault(zeros=True)),
}
