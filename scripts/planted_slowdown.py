#!/usr/bin/env python3
"""A workload with known verdicts, SAME and SLOWER: one variant twice, and once more with a planted slow-down.

usage: PLANTED=WORKLOAD/VARIANT [PLANTED_SHARE=0.05] moeprof capture scripts/planted_slowdown.py --tools none
       then: moeprof check CAPTURE --variant slower --fail-on 'step_time>2%'     must exit 3
             moeprof check CAPTURE --variant again --fail-on 'step_time>2%'      must exit 0

The slow-down is a kernel that only waits (on a CPU: a loop). It lasts PLANTED_SHARE of the time of the variant, measured when the
variant is built.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from moeprof.workload.find import load
from moeprof.workload.model import Params, Step, Variant, Workload
from moeprof.workloads.common.timing import seconds

CYCLES = 1_000_000
TIMES = 20


def waits(wanted_s: float, device: str) -> Callable[[], None]:
    """A function that takes ``wanted_s`` seconds and does nothing else."""
    if device != "cuda":

        def spin() -> None:
            end = time.perf_counter() + wanted_s
            while time.perf_counter() < end:
                pass

        return spin
    import torch

    cycle_s = median(seconds(lambda: torch.cuda._sleep(CYCLES), device, TIMES, graph=False) for _ in range(3))
    cycles = max(1, round(CYCLES * wanted_s / cycle_s))
    return lambda: torch.cuda._sleep(cycles)


def slower(variant: Variant, share: float, params: Params, device: str) -> Step:
    """The step of the variant, followed by the wait."""
    step = variant.build(params, device)
    extra = waits(share * seconds(step.run, device, TIMES, graph=False, warm_s=0.3), device)

    def run() -> None:
        step.run()
        extra()

    return replace(step, run=run)


def planted(where: str, share: float) -> Workload:
    """The workload with the variants ``as_is``, ``again`` and ``slower``."""
    workload = load(where.partition("/")[0])
    chosen = workload.variant(where.partition("/")[2] or workload.optimized)
    variants = (
        replace(chosen, name="as_is", summary=f"{workload.name}/{chosen.name}"),
        replace(chosen, name="again", summary="the same"),
        replace(chosen, name="slower", summary=f"the same and a wait of {share:.0%}", build=lambda params, device: slower(chosen, share, params, device)),
    )  # fmt: skip
    return replace(
        workload, name=f"{workload.name}_planted", variants=variants, baseline="as_is", optimized="slower", limit=None
    )


WORKLOAD = planted(os.environ.get("PLANTED", "kv_transfer/baseline"), float(os.environ.get("PLANTED_SHARE", "0.05")))

if __name__ == "__main__":
    print(__doc__)
