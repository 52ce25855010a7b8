"""Run one variant of a workload as a plain script: ``python -m moeprof.workloads.kv_transfer --variant overlap``."""

from __future__ import annotations

import argparse
import sys
from statistics import median

from moeprof import following, region
from moeprof.errors import ExitCode, MoeprofError, WorkloadError
from moeprof.running import Session, machine
from moeprof.workload import Workload, pairs


def main(workload: Workload) -> None:
    """Prove, time and print one variant; the process exits as ``moeprof`` would."""
    args = _parser(workload).parse_args()
    try:
        print(_run(workload, args))
    except MoeprofError as error:
        print(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(ExitCode.OK)


def _run(workload: Workload, args: argparse.Namespace) -> str:
    facts = machine(args.device or "cuda")
    device = args.device or ("cuda" if facts.cuda else "cpu")
    variant = workload.variant(args.variant)
    reason = variant.needs(facts)
    if reason:
        return f"{workload.name}/{variant.name} SKIPPED: {reason}"
    if args.nvtx:
        region.enable_nvtx()
    params = workload.params(args.preset or ("default" if facts.cuda else "tiny"), pairs(args.set))
    if workload.ranks:
        following.alone(device)
    session = Session(workload, variant, device, workload.resolve(params, facts))
    proof = session.prove()
    if not proof.ok:
        raise WorkloadError(f"{workload.name}/{variant.name} is wrong: {proof.reason}", "its time would mean nothing")
    session.warm_up()
    session.measured(args.iterations)
    times = session.round(args.seconds)
    return (
        f"{workload.name}/{variant.name} on {device}: {median(times) / 1e6:.3f} ms an iteration "
        f"(median of {len(times)}); proven: {proof.checked}, error {proof.error:.1e} (tolerance {proof.tolerance:.0e})"
    )


def _parser(workload: Workload) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=workload.summary)
    parser.add_argument("--variant", choices=[v.name for v in workload.variants], default=workload.baseline)
    parser.add_argument("--preset", choices=list(workload.presets))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--iterations", type=int, default=3, help="iterations under ranges before the timing")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to time")
    parser.add_argument("--nvtx", action="store_true", help="push NVTX ranges")
    return parser
