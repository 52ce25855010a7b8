#!/usr/bin/env python3
"""Time every variant of expert_parallel, its compute and its communication alone, interleaved in one process group.

usage: torchrun --nproc-per-node N benchmark_expert_parallel.py PRESET[:KEY=VALUE,...] ... [--rounds N] [--json FILE]

Each entry is proven before it is timed; all ranks enter a round together, and an iteration's time is the slowest rank's. Printed:
the time, overlap efficiency (t_baseline - t) / (t_baseline - max(compute, communication)), the hidden share of communication
(compute + communication - t) / communication, and the SM time of communication kernels (their time times their blocks, one per SM,
waiting for other ranks included) from a trace of each variant apart. Then the bus bandwidth of the all-to-all beside copy engines
at 16, 64 and 256 MiB per rank. "peer_copy in a graph" is not a variant; it is left out if it cannot be captured.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch

from moeprof.errors import MoeprofError, WorkloadError
from moeprof.worker.built_variant import machine
from moeprof.worker.script import agreed, joined, of_each
from moeprof.workload.find import load
from moeprof.workload.model import pairs
from moeprof.workloads.common.timing import synchronise
from moeprof.workloads.expert_parallel import check, overlap, peer_copy
from moeprof.workloads.expert_parallel import layout as ep
from moeprof.workloads.expert_parallel import workload as expert_parallel
from moeprof.workloads.expert_parallel.all_to_all import AllToAll
from moeprof.workloads.expert_parallel.faults import Fault

Run = Callable[[], object]
ROUND_MS = 40  # of one entry in one round
SIZES_MIB = (16, 64, 256)
TRACED = 5  # iterations
KINDS = {"nccl": ("nccl",), "signals": ("signal",)}  # kernels that move rows or signal them, by a part of their name


def times(run: Run, count: int, device: str) -> list[float]:
    """Milliseconds of ``count`` iterations back to back after an untimed one, each of the slowest rank."""
    ep.barrier(device)
    if device == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 2)]
        for mark in marks:
            mark.record()
            run()
        torch.cuda.synchronize()
        local_times = [a.elapsed_time(b) for a, b in pairwise(marks[1:])]
    else:
        local_times = [_clocked(run) for _ in range(count + 1)][1:]
    return [max(rank_times) for rank_times in zip(*of_each(local_times), strict=True)]


def _clocked(run: Run) -> float:
    start = perf_counter_ns()
    run()
    return (perf_counter_ns() - start) / 1e6


def measure(runs: dict[str, Run], rounds: int, device: str) -> dict[str, list[float]]:
    """Each entry's median of every round, the order rotated; all ranks run the same number."""
    counts = {name: max(3, min(200, round(ROUND_MS / max(times(run, 3, device))))) for name, run in runs.items()}
    medians: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            medians[name].append(median(times(runs[name], counts[name], device)))
    return medians


def builds(params: dict[str, Any], device: str, count: int) -> dict[str, Callable[[], Any]]:
    """The variants that can be built here, by name; the others are reported."""
    facts = machine(device, count)
    builders: dict[str, Callable[[], Any]] = {}
    for variant in expert_parallel.WORKLOAD.variants:
        if reason := variant.needs(facts):
            print_once(f"  {variant.name}: SKIPPED: {reason}")
        else:
            builders[variant.name] = lambda variant=variant: variant.build(params, device)
    if "peer_copy" in builders:
        builders["peer_copy in a graph"] = lambda: expert_parallel.build_peer_copy(params, device, graph=True)
    return builders


def proven(params: dict[str, Any], device: str, build: Callable[[], Any]) -> Any:
    """The built step; raises WorkloadError on every rank where one rank's proof fails, or its build."""
    try:
        step, reason = build(), ""
    except RuntimeError as error:
        step, reason = None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    if any(reasons := of_each(reason)):
        raise WorkloadError(f"it cannot be built: {next(filter(None, reasons))}")
    proof = agreed(check.prove(params, device, step))
    if not proof.ok:
        raise WorkloadError(f"it is wrong: {proof.reason}")
    return step


def apart(params: dict[str, Any], device: str) -> dict[str, Run]:
    """All local work of a layer without its exchange, and the exchange alone; not in chunks, and in them."""
    runs: dict[str, Run] = {}
    for name, chunks in (("", 1), (" in chunks", params["chunks"])):
        layer = expert_parallel._parts(params, device, chunks, Fault())
        sending = AllToAll(layer.layout, layer.buffers, handles=False)
        overlap.iterate(layer, sending, overlap.Sequential())
        runs["compute" + name] = lambda layer=layer: compute(layer)
        runs["communication" + name] = lambda sending=sending, chunks=chunks: communicate(sending, chunks)
    return runs


def compute(layer: Any) -> None:
    """An iteration without the exchange: on the rows that are there."""
    chunks = range(layer.layout.chunks)
    layer.route()
    for c in chunks:
        layer.gather(c)
    layer.arrange()
    for c in chunks:
        layer.experts(c)
    for c in chunks:
        layer.total(c)


def communicate(sending: overlap.Exchange, chunks: int) -> None:
    """The exchange alone."""
    sending.counts()
    for c in range(chunks):
        sending.dispatch(c)
    for c in range(chunks):
        sending.return_results(c)


def sm_ms(run: Run) -> dict[str, float]:
    """SM milliseconds per iteration of each kind of communication kernel: time x blocks, one block per SM."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    ep.barrier("cuda")
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(TRACED):
            run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    sms = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    times_by_kind = dict.fromkeys(KINDS, 0.0)
    for event in events:
        if event.get("cat") == "kernel":
            grid = event["args"]["grid"]
            blocks = min(sms, grid[0] * grid[1] * grid[2])
            for kind, parts in KINDS.items():
                if any(part in event["name"].lower() for part in parts):
                    times_by_kind[kind] += event["dur"] * blocks / 1e3 / TRACED
    return times_by_kind


def case(params: dict[str, Any], rounds: int, device: str, count: int) -> list[dict[str, Any]]:
    """A row an entry."""
    steps: dict[str, Any] = {}
    for name, build in builds(params, device, count).items():
        try:
            steps[name] = proven(params, device, build)
        except WorkloadError as error:
            print_once(f"  {name}: left out: {error.message}")
    alone = apart(params, device)
    medians = measure({name: step.run for name, step in steps.items()} | alone, rounds, device)
    busy = {name: sm_ms(step.run) for name, step in steps.items()} if device == "cuda" else {}
    ms = {name: median(samples) for name, samples in medians.items()}
    rows = [_row(name, ms, medians[name]) | {"sm_ms": busy.get(name)} for name in medians]
    facts = {name: step.facts() for name, step in steps.items()}
    return [row | {"facts": facts.get(row["entry"])} for row in rows]


def _row(name: str, ms: dict[str, float], samples: list[float]) -> dict[str, Any]:
    best, comm = max(ms["compute"], ms["communication"]), ms["communication"]
    gain, room = ms["baseline"] - ms[name], ms["baseline"] - best
    variant = not name.startswith(("compute", "communication"))
    return {
        "entry": name,
        "ms": ms[name],
        "rounds_ms": samples,
        "overlap_efficiency": gain / room if variant and room > 0 else None,
        "hidden_share": (ms["compute"] + comm - ms[name]) / comm if variant else None,
    }


def links(device: str) -> list[dict[str, Any]]:
    """Bus bandwidth of the all-to-all, and of copy engines where GPUs are linked, by size."""
    rows = []
    for mib in SIZES_MIB if device == "cuda" else SIZES_MIB[:1]:
        copied = peer_copy.copy_gb_per_s(mib << 20) if device == "cuda" and peer_copy.linked(ep.ranks()) else None
        rows.append({"mib": mib, "all_to_all_gb_per_s": check.all_to_all_gb_per_s(mib << 20, device), "copy_engine_gb_per_s": copied})  # fmt: skip
    return rows


def print_once(line: str) -> None:
    """Print on rank 0."""
    if ep.ranks().rank == 0:
        print(line, flush=True)


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.3f}{unit}"


def show(rows: list[dict[str, Any]]) -> None:
    """One line an entry."""
    print_once(f"  {'':24s} {'ms':>9s} {'efficiency':>10s} {'hidden':>7s}  SM ms of communication kernels")
    for row in rows:
        busy = ", ".join(f"{kind} {value:.2f}" for kind, value in (row["sm_ms"] or {}).items()) or "-"
        print_once(f"  {row['entry']:24s} {row['ms']:9.4f} {_number(row['overlap_efficiency']):>10s} {_number(row['hidden_share']):>7s}  {busy}")  # fmt: skip


def bench(args: argparse.Namespace, device: str, count: int) -> dict[str, Any]:
    """Everything, as data."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    results: dict[str, Any] = {"device": name, "ranks": count, "torch": torch.__version__, "cases": {}}
    print_once(f"{count} ranks, {name}, torch {torch.__version__}")
    for words in args.cases:
        preset, _, more = words.partition(":")
        params = load("expert_parallel").params(preset, pairs(more.split(",") if more else []))
        ep.check(params, count)
        print_once(f"\n{words}")
        results["cases"][words] = rows = case(params, args.rounds, device, count)
        show(rows)
        gc.collect()  # graphs with collectives
        if device == "cuda":
            synchronise(device)
            torch.cuda.empty_cache()
    print_once("\nGB/s each way, all ranks at once")
    results["links"] = links(device)
    for row in results["links"]:
        print_once(f"  {row['mib']:4d} MiB per rank: all-to-all {row['all_to_all_gb_per_s']:.1f} (bus), copy engines {_number(row['copy_engine_gb_per_s'])}")  # fmt: skip
    return results


def main() -> int:
    """The command, on every rank."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="PRESET[:KEY=VALUE,...]", help="none: the links alone")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="write everything here too")
    args = parser.parse_args()
    try:
        with joined(args.device) as count:
            results = bench(args, args.device, count)
            if args.json and ep.ranks().rank == 0:
                Path(args.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    except MoeprofError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
