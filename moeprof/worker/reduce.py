"""What all ranks answer as one: the slowest time, the worst proof, the busiest share of the work. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from moeprof.worker.messages import Built, MeasuredCeilings, Proven
from moeprof.workload.model import Proof


def slowest(times_ns: Sequence[Sequence[int]]) -> list[int]:
    """Per iteration the time of the slowest rank: an iteration is over when all ranks are through."""
    return [max(times) for times in zip(*times_ns, strict=True)]


def medians(times_ns: Sequence[Sequence[int]]) -> list[int]:
    """Each rank's own typical time."""
    return [round(median(times)) for times in times_ns]


def built(replies: Sequence[Built]) -> Built:
    """The work of the rank that has most of it."""
    return Built(max(reply.flops for reply in replies), max(reply.bytes_moved for reply in replies))


def ceilings(replies: Sequence[MeasuredCeilings]) -> dict[str, float]:
    """What every rank reaches: the least of all."""
    return {name: min(reply.ceilings[name] for reply in replies) for name in replies[0].ceilings}


def proven(replies: Sequence[Proven]) -> Proven:
    """The worst proof, which names its rank, the facts of rank 0, and both of each rank."""
    if len(replies) == 1:
        return replies[0]
    return Proven(worst([reply.proof for reply in replies]), replies[0].facts, tuple(replies))


def worst(proofs: list[Proof]) -> Proof:
    """The proof of the first rank that is wrong, else the one nearest to its tolerance; it names the rank."""
    rank, proof = max(enumerate(proofs), key=lambda item: (not item[1].ok, _nearness(item[1]), -item[0]))
    named = f"{proof.checked} (each of {len(proofs)} ranks; rank {rank} is the worst)"
    return replace(proof, checked=named, reason=f"rank {rank}: {proof.reason}" if proof.reason else "")


def _nearness(proof: Proof) -> float:
    return (proof.error or 0.0) / proof.tolerance if proof.tolerance else proof.error or 0.0
