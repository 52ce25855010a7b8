"""Run one variant of a workload as a plain script: ``python -m moeprof.workloads.kv_transfer --variant overlap``.

A workload with ranks joins the others where a launcher has started several, and is a group of one otherwise:
``torchrun --nproc-per-node 2 -m moeprof.workloads.expert_parallel --variant overlap --preset tiny``. Rank 0 prints.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from statistics import median
from typing import Any

from moeprof.errors import ExitCode, MoeprofError, UsageError, WorkloadError
from moeprof.worker import nvtx
from moeprof.worker.built_variant import Session, machine, timed
from moeprof.worker.reduce import slowest, worst
from moeprof.workload.model import Machine, Proof, Workload, pairs

TIMEOUT_S = 120  # of one collective


def main(workload: Workload) -> None:
    """Prove, time and print one variant; the process exits as ``moeprof`` would."""
    args = _parser(workload).parse_args()
    try:
        if line := _ran(workload, args):
            print(line)
    except MoeprofError as error:
        print(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(ExitCode.OK)


def _ran(workload: Workload, args: argparse.Namespace) -> str:
    facts = machine(args.device or "cuda")
    device = args.device or ("cuda" if facts.cuda else "cpu")
    if not workload.ranks:
        return _run(workload, args, facts, device)
    with joined(device) as count:
        line = _run(workload, args, replace(facts, ranks=count), device)
        gc.collect()  # a CUDA graph that holds collectives must go before the group does
    return line


def _run(workload: Workload, args: argparse.Namespace, facts: Machine, device: str) -> str:
    variant = workload.variant(args.variant)
    reason = variant.needs(facts)
    if reason:
        return _alone(f"{workload.name}/{variant.name} SKIPPED: {reason}")
    if args.nvtx:
        nvtx.enable_nvtx()
    params = workload.params(args.preset or ("default" if facts.cuda else "tiny"), pairs(args.set))
    session = Session(workload, variant, device, workload.resolve(params, facts))
    proof = agreed(session.prove())
    if not proof.ok:
        raise WorkloadError(
            f"{workload.name}/{variant.name} is wrong: {proof.reason}",
            "fix the variant; the time of a wrong result means nothing",
        )
    session.warm_up()
    session.measured(args.iterations)
    times = together(session, args.seconds) if workload.ranks else session.round(args.seconds)
    ranks = f", {facts.ranks} rank{'s' if facts.ranks > 1 else ''}" if workload.ranks else ""
    return _alone(
        f"{workload.name}/{variant.name} on {device}{ranks}: {median(times) / 1e6:.3f} ms per iteration "
        f"(median of {len(times)}); proven: {proof.checked}, error {proof.error:.1e} (tolerance {proof.tolerance:.0e})"
    )


@contextmanager
def joined(device: str) -> Iterator[int]:
    """torch.distributed initialised by the launcher's variables, or as a group of one; the number of ranks.

    Raises:
        UsageError: there are more ranks on this host than GPUs, or only part of the variables is set.
    """
    import torch
    import torch.distributed as dist

    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if "WORLD_SIZE" in os.environ and "RANK" not in os.environ:
        raise UsageError("WORLD_SIZE is set and RANK is not", "start with torchrun, or unset both")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"rank {local} of this host has no GPU", f"give --nproc-per-node {torch.cuda.device_count()} or less")  # fmt: skip
        torch.cuda.set_device(local)
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # no NVLink multicast
    how: dict[str, Any] = {"backend": "gloo", "timeout": timedelta(seconds=TIMEOUT_S)}
    if device == "cuda":
        how |= {"backend": "nccl", "device_id": torch.device("cuda", local)}
    if "RANK" not in os.environ:
        how |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(**how)
    try:
        yield count
    finally:
        dist.destroy_process_group()


def of_each(value: Any) -> list[Any]:
    """``value`` of every rank; of this process alone where it has no others."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def _alone(text: str) -> str:
    """``text`` on rank 0, nothing elsewhere."""
    return text if int(os.environ.get("RANK", "0")) == 0 else ""


def agreed(proof: Proof) -> Proof:
    """The worst proof of all ranks, which it names."""
    proofs: list[Proof] = of_each(proof)
    return worst(proofs) if len(proofs) > 1 else proof


def together(session: Session, seconds: float) -> list[int]:
    """Clean times in ns of single iterations, each of the slowest rank, so that all ranks run the same number."""
    return timed(lambda count: slowest(of_each(session.times(count))), seconds)


def _parser(workload: Workload) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=workload.summary)
    parser.add_argument("--variant", choices=[v.name for v in workload.variants], default=workload.baseline)
    parser.add_argument("--preset", choices=list(workload.presets))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument(
        "--iterations", type=int, default=3, help="iterations under ranges before the timing; default: 3"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of timing; default: 1")
    parser.add_argument("--nvtx", action="store_true", help="push NVTX ranges")
    return parser
