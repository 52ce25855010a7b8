"""The metrics of Nsight Compute by name, each in one place: what a capture collects, and what the analyses read. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# name -> (unit, meaning). Few, so that ncu replays a kernel only a handful of times.
COUNTED: dict[str, tuple[str, str]] = {
    "gpu__time_duration.sum": (
        "ns",
        "duration under ncu: serialised, caches flushed; never compared with nsys's times",
    ),
    "dram__bytes_read.sum": ("byte", "bytes read from device memory"),
    "dram__bytes_write.sum": ("byte", "bytes written to device memory"),
    "dram__bytes.sum": ("byte", "bytes moved to and from device memory"),
    "dram__bytes.sum.per_second": ("byte/s", "device-memory throughput"),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("%", "device-memory throughput, of its peak"),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("%", "the busiest pipe of the multiprocessors, of its peak"),
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": ("%", "cycles in which the tensor pipe worked"),
    "lts__t_sector_hit_rate.pct": ("%", "L2 hit rate"),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("%", "achieved occupancy"),
    "launch__registers_per_thread": ("register/thread", "registers a thread"),
    "launch__occupancy_limit_registers": ("block", "blocks an SM that registers allow"),
    "launch__occupancy_limit_shared_mem": ("block", "blocks an SM that shared memory allows"),
}

TENSOR = "sm__ops_path_tensor_src_"
TENSOR_PIPE = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
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
DRAM_PEAK = "dram__bytes.sum.peak_sustained"  # bytes a cycle of all channels
DRAM_CLOCK = "dram__cycles_elapsed.avg.per_second"
TENSOR_BUSY = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
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
