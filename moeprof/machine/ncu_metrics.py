"""The metrics of Nsight Compute by name, each in one place: what a capture collects, and what the analyses read. Pure."""

from __future__ import annotations

from collections.abc import Iterable

PEAK_ELAPSED, PEAK_ACTIVE = "avg.pct_of_peak_sustained_elapsed", "avg.pct_of_peak_sustained_active"
DURATION = "gpu__time_duration.sum"
SM_THROUGHPUT = f"sm__throughput.{PEAK_ELAPSED}"
MEMORY_THROUGHPUT = f"gpu__compute_memory_throughput.{PEAK_ELAPSED}"
DRAM_THROUGHPUT = f"dram__throughput.{PEAK_ELAPSED}"  # what a capture counts
GPU_DRAM_THROUGHPUT = f"gpu__dram_throughput.{PEAK_ELAPSED}"  # the same share, as ncu's sections name it
L1_THROUGHPUT, L2_THROUGHPUT = f"l1tex__throughput.{PEAK_ACTIVE}", f"lts__throughput.{PEAK_ELAPSED}"
L1_HIT_RATE, L2_HIT_RATE = "l1tex__t_sector_hit_rate.pct", "lts__t_sector_hit_rate.pct"
DRAM_READ, DRAM_WRITE, DRAM_BYTES = "dram__bytes_read.sum", "dram__bytes_write.sum", "dram__bytes.sum"
DRAM_BYTES_PER_S = f"{DRAM_BYTES}.per_second"
TENSOR_PIPE = f"sm__pipe_tensor_cycles_active.{PEAK_ACTIVE}"
THEORETICAL_OCCUPANCY = "sm__maximum_warps_per_active_cycle_pct"
ACHIEVED_OCCUPANCY = f"sm__warps_active.{PEAK_ACTIVE}"
OCCUPANCY_LIMIT = "launch__occupancy_limit_"  # and the resource: blocks an SM that it allows
REGISTERS, WAVES = "launch__registers_per_thread", "launch__waves_per_multiprocessor"
ACTIVE_WARPS, ELIGIBLE_WARPS = "smsp__warps_active.avg.per_cycle_active", "smsp__warps_eligible.avg.per_cycle_active"
ISSUED, NO_ELIGIBLE = "smsp__issue_active.avg.per_cycle_active", f"smsp__issue_inst0.{PEAK_ACTIVE}"
CYCLES_PER_INSTRUCTION = "smsp__average_warp_latency_per_inst_issued.ratio"

# name -> (unit, meaning). Few, so that ncu replays a kernel only a handful of times.
COUNTED: dict[str, tuple[str, str]] = {
    DURATION: (
        "ns",
        "duration under ncu: serialised, caches flushed; never compared with nsys's times",
    ),
    DRAM_READ: ("byte", "bytes read from device memory"),
    DRAM_WRITE: ("byte", "bytes written to device memory"),
    DRAM_BYTES: ("byte", "bytes moved to and from device memory"),
    DRAM_BYTES_PER_S: ("byte/s", "device-memory throughput"),
    DRAM_THROUGHPUT: ("%", "device-memory throughput, of its peak"),
    SM_THROUGHPUT: ("%", "the busiest pipe of the multiprocessors, of its peak"),
    TENSOR_PIPE: ("%", "cycles in which the tensor pipe worked"),
    L2_HIT_RATE: ("%", "L2 hit rate"),
    ACHIEVED_OCCUPANCY: ("%", "achieved occupancy"),
    REGISTERS: ("register/thread", "registers a thread"),
    f"{OCCUPANCY_LIMIT}registers": ("block", "blocks an SM that registers allow"),
    f"{OCCUPANCY_LIMIT}shared_mem": ("block", "blocks an SM that shared memory allows"),
}

TENSOR = "sm__ops_path_tensor_src_"
SASS = "smsp__sass_thread_inst_executed_op_{}_pred_on"
CYCLES = "smsp__cycles_elapsed.avg"
# pipe -> instruction -> its FLOPs a thread
PIPES: dict[str, dict[str, int]] = {
    "fp32": {"fadd": 1, "fmul": 1, "ffma": 2, "fadd2": 2, "fmul2": 2, "ffma2": 4},
    "fp64": {"dadd": 1, "dmul": 1, "dfma": 2},
    "fp16": {"hadd": 2, "hmul": 2, "hfma": 4},
}
NEWER = ("fadd2", "fmul2", "ffma2")  # packed fp32, from sm_100 on
FMA = {"fp32": "ffma", "fp64": "dfma", "fp16": "hfma"}
PEAK = "sm__sass_thread_inst_executed_op_{}_pred_on.sum.peak_sustained"  # instructions a cycle of all SMs
SM_CLOCK = "sm__cycles_elapsed.avg.per_second"
DRAM_PEAK = f"{DRAM_BYTES}.peak_sustained"  # bytes per cycle of all channels
DRAM_CLOCK = "dram__cycles_elapsed.avg.per_second"
TENSOR_BUSY = f"sm__pipe_tensor_cycles_active.{PEAK_ELAPSED}"
PEAKS = (DRAM_PEAK, DRAM_CLOCK, PEAK.format(FMA["fp32"]), SM_CLOCK, TENSOR_BUSY)

WARP_STATE_PREFIX, WARP_STATE_SUFFIX = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
# ncu's name of a state -> what a warp in it waits for
WARP_STATES = {
    "long_scoreboard": "a load from global or local memory", "barrier": "a barrier of its block", "short_scoreboard": "shared memory or a slow unit",
    "mio_throttle": "room in the queue of shared-memory and slow instructions", "lg_throttle": "room in the queue of global loads",
    "gmma": "a warpgroup's matrix product", "math_pipe_throttle": "a busy arithmetic pipe", "wait": "a fixed latency",
    "not_selected": "its turn: another warp issues", "selected": "nothing: it issues", "no_instruction": "its instructions",
    "branch_resolving": "a branch", "dispatch_stall": "the dispatcher", "drain": "its stores, to end", "imc_miss": "a constant",
    "membar": "a memory fence", "misc": "something else", "sleeping": "the end of a sleep", "tex_throttle": "room in the texture queue",
}  # fmt: skip
WARP_STATE_METRICS = tuple(f"{WARP_STATE_PREFIX}{state}{WARP_STATE_SUFFIX}" for state in WARP_STATES)


def roofline_metrics(known: Iterable[str]) -> tuple[str, ...]:
    """The metrics of FLOPs and peaks among the base names that ncu offers on a chip. Names differ by chip, and ncu refuses a
    run with an unknown one."""
    names = frozenset(known)
    return (*wanted(names), *(metric for metric in PEAKS if metric.partition(".")[0] in names))


def outermost(names: Iterable[str]) -> tuple[str, ...]:
    """The names that do not refine another: ``..._src_bf16_dst_fp32_sparsity_on`` is part of ``..._src_bf16_dst_fp32``."""
    every = sorted(set(names))
    return tuple(name for name in every if not any(name.startswith(f"{other}_") for other in every))


def wanted(known: Iterable[str]) -> tuple[str, ...]:
    """The metrics to request, among the base names that ncu offers on a chip (``ncu --query-metrics``)."""
    every = set(known)
    scalar = [SASS.format(op) for weights in PIPES.values() for op in weights]
    tensor = outermost(n for n in every if n.startswith(TENSOR) and not n.startswith(f"{TENSOR}int1"))
    return tuple(f"{name}.sum" for name in (*(n for n in scalar if n in every), *tensor))
