"""The numbers of one kernel against an independent reading of ncu's recorded pages."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders.ncu_pages import GEMM, SOFTMAX, column
from hypothesis import given
from hypothesis import strategies as st

from moeprof.kernels.counters import LABELS, counted
from moeprof.kernels.inspection import WANTED, Inspection, inspections, states
from moeprof.kernels.memory_chart import memory_chart
from moeprof.kernels.occupancy import occupancy
from moeprof.kernels.operations import operations, roofs, uncounted
from moeprof.report import inspection as shown
from moeprof.trace.ncu.counters import read_counters
from moeprof.trace.ncu.pages import Pages, read_pages


@pytest.fixture(scope="module")
def raw(traces: Path) -> Path:
    return traces / "h200" / "ncu_raw.csv"


@pytest.fixture(scope="module")
def found(raw: Path) -> dict[str, Inspection]:
    return {("gemm" if k.kernel == GEMM else "softmax"): k for k in inspections(read_pages([raw]), ".", WANTED)}


PEAK, ACTIVE = "avg.pct_of_peak_sustained_elapsed", "avg.pct_of_peak_sustained_active"
LSU = "l1tex__t_{}_pipe_lsu_mem_global_op_{}.sum"
SHOWN: dict[str, tuple[str, Callable[[Inspection], Any]]] = {
    "duration": ("gpu__time_duration.sum", lambda k: k.speed.duration_ns),
    "sm": (f"sm__throughput.{PEAK}", lambda k: k.speed.sm_percent),
    "memory": (f"gpu__compute_memory_throughput.{PEAK}", lambda k: k.speed.memory_percent),
    "l1": (f"l1tex__throughput.{ACTIVE}", lambda k: k.speed.l1_percent),
    "l2": (f"lts__throughput.{PEAK}", lambda k: k.speed.l2_percent),
    "dram": (f"gpu__dram_throughput.{PEAK}", lambda k: k.speed.dram_percent),
    "dram rate": ("dram__bytes.sum.per_second", lambda k: k.speed.dram_bytes_per_s),
    "l1 hits": ("l1tex__t_sector_hit_rate.pct", lambda k: link(k, "global").hit_percent),
    "l2 hits": ("lts__t_sector_hit_rate.pct", lambda k: link(k, "L1 to L2").hit_percent),
    "l2 read": ("l1tex__m_xbar2l1tex_read_bytes.sum", lambda k: link(k, "L1 to L2").read_bytes),
    "l2 written": ("l1tex__m_l1tex2xbar_write_bytes.sum", lambda k: link(k, "L1 to L2").write_bytes),
    "dram read": ("dram__bytes_read.sum", lambda k: link(k, "L2 to device").read_bytes),
    "dram written": ("dram__bytes_write.sum", lambda k: link(k, "L2 to device").write_bytes),
    "loaded sectors": (LSU.format("sectors", "ld"), lambda k: link(k, "global").read_bytes / 32),
    "stored sectors": (LSU.format("sectors", "st"), lambda k: link(k, "global").write_bytes / 32),
    "wavefronts": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", lambda k: k.memory.shared_wavefronts),
    "conflicts": ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum", lambda k: k.memory.shared_conflicts),
    "theoretical": ("sm__maximum_warps_per_active_cycle_pct", lambda k: k.occupancy.theoretical_percent),
    "achieved": (f"sm__warps_active.{ACTIVE}", lambda k: k.occupancy.achieved_percent),
    "registers": ("launch__registers_per_thread", lambda k: k.occupancy.registers),
    "shared": ("launch__shared_mem_per_block", lambda k: k.occupancy.shared_bytes),
    "waves": ("launch__waves_per_multiprocessor", lambda k: k.occupancy.waves),
    "by registers": ("launch__occupancy_limit_registers", lambda k: k.occupancy.limits["registers"]),
    "by shared": ("launch__occupancy_limit_shared_mem", lambda k: k.occupancy.limits["shared memory"]),
    "by warps": ("launch__occupancy_limit_warps", lambda k: k.occupancy.limits["warps an SM can hold"]),
    "active": ("smsp__warps_active.avg.per_cycle_active", lambda k: k.scheduler.active_warps),
    "eligible": ("smsp__warps_eligible.avg.per_cycle_active", lambda k: k.scheduler.eligible_warps),
    "issued": ("smsp__issue_active.avg.per_cycle_active", lambda k: k.scheduler.issued_per_cycle),
    "no eligible": (f"smsp__issue_inst0.{ACTIVE}", lambda k: k.scheduler.no_eligible_percent),
    "latency": ("smsp__average_warp_latency_per_inst_issued.ratio", lambda k: k.scheduler.cycles_per_instruction),
    "alu": (f"sm__pipe_alu_cycles_active.{ACTIVE}", lambda k: pipe(k, "alu").busy_percent),
    "fma": (f"sm__pipe_fma_cycles_active.{ACTIVE}", lambda k: pipe(k, "fma").busy_percent),
    "lsu": (f"sm__inst_executed_pipe_lsu.{ACTIVE}", lambda k: pipe(k, "lsu").issued_percent),
    "tensor": (f"sm__pipe_tensor_cycles_active.{ACTIVE}", lambda k: pipe(k, "tensor").busy_percent),
    "barrier": ("smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio", lambda k: state(k, "barrier")),
    "long": ("smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio", lambda k: state(k, "long_scoreboard")),
}  # fmt: skip


def link(k: Inspection, name: str) -> Any:
    return next(one for one in k.memory.links if one.name.startswith(name))


def pipe(k: Inspection, name: str) -> Any:
    return next(one for one in k.pipes if one.name == name)


def state(k: Inspection, name: str) -> float:
    return next(one.cycles for one in k.states if one.name == name)


@pytest.mark.parametrize("number", SHOWN)
@pytest.mark.parametrize("kernel", ["gemm", "softmax"])
def test_each_number_is_the_raw_pages(found: dict[str, Inspection], raw: Path, kernel: str, number: str) -> None:
    metric, getter = SHOWN[number]
    expected = column(raw, GEMM if kernel == "gemm" else SOFTMAX)(metric)
    assert expected is not None and getter(found[kernel]) == pytest.approx(expected, rel=1e-12)


def test_sectors_a_request_are_a_quotient_of_two_counters(found: dict[str, Inspection], raw: Path) -> None:
    value = column(raw, SOFTMAX)
    loads, stores = ([value(LSU.format(kind, op)) or 0.0 for kind in ("sectors", "requests")] for op in ("ld", "st"))
    told = link(found["softmax"], "global")
    assert loads[0] / loads[1] == 2.0, "each warp reads 32 numbers of 2 bytes: 64 bytes, two sectors"
    assert (told.read_sectors_per_request, told.write_sectors_per_request) == (
        loads[0] / loads[1],
        stores[0] / stores[1],
    )


def test_launches_of_one_shape_are_one_kernel_and_say_so(found: dict[str, Inspection]) -> None:
    assert found["gemm"].launches == (0, 2, 4, 6, 8) and found["softmax"].launches == (1, 3, 5, 7, 9)
    assert (found["gemm"].grid, found["gemm"].block) == ((2, 66, 1), (384, 1, 1))
    assert found["gemm"].missing == {} and found["softmax"].missing == {}


def test_dram_is_ncus_own_share_and_that_of_the_formula(found: dict[str, Inspection], raw: Path) -> None:
    for kernel, name in (("gemm", GEMM), ("softmax", SOFTMAX)):
        value, speed = column(raw, name), found[kernel].speed
        rate, peak, clock = (
            value(m) or 0.0
            for m in (
                "dram__bytes.sum.per_second",
                "dram__bytes.sum.peak_sustained",
                "dram__cycles_elapsed.avg.per_second",
            )
        )
        assert speed.dram_formula_percent == pytest.approx(100 * rate / (peak * clock), rel=1e-12)
        assert speed.dram_percent == pytest.approx(speed.dram_formula_percent, abs=0.01)


def test_what_cannot_be_known_is_absent_and_named() -> None:
    assert operations({}, 1.0) == () and roofs([], None, None) == () and occupancy({}).limiters == ()
    assert uncounted({}, ()) == ("fp32, fp64, fp16: no smsp__sass_thread_inst_executed_op_*_pred_on.sum",)
    chart = memory_chart(
        {"l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": 8.0, "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": 0.0}
    )
    assert (
        chart.dram_bytes is None
        and chart.links[0].read_bytes == 256.0
        and chart.links[0].read_sectors_per_request is None
    )
    spilled = memory_chart(
        {"l1tex__t_sectors_pipe_lsu_mem_local_op_ld.sum": 2.0, "l1tex__t_sectors_pipe_lsu_mem_local_op_st.sum": 0.0}
    )
    assert [one.name for one in spilled.links] == ["local memory (spills, stacks) to L1"], "only where there are some"


def test_the_details_page_alone_gives_the_same_rounded(raw: Path, traces: Path) -> None:
    """Its labels are mapped to metrics; a wrong entry would show another number."""
    frame = read_counters(traces / "h200" / "ncu_details.csv")
    for pattern in ("nvjet", SOFTMAX):
        (detailed,), (mine,) = counted(frame, pattern), counted(read_counters(raw), pattern)
        for metric in LABELS.values():
            assert detailed.values[metric] == pytest.approx(mine.values[metric], rel=0.005, abs=0.006), metric
        (shown_alone,) = inspections(Pages(frame), pattern, WANTED)
        assert shown_alone.missing["operations"] and "warp states" in shown_alone.missing
    assert set(LABELS) <= set(zip(frame["metric"].astype(str), frame["unit"].astype(str), strict=True)), (
        "every label was seen"
    )


def test_rules_come_from_the_details_page_with_the_best_estimate(traces: Path, raw: Path) -> None:
    pages = read_pages([traces / "h200" / "ncu_details.csv", raw])
    (kernel,) = inspections(pages, "nvjet", WANTED)
    rows = list(csv.DictReader((traces / "h200" / "ncu_details.csv").read_text().splitlines()))
    best: dict[str, float] = {}
    for row in rows:
        if row["Rule Name"] and row["Kernel Name"] == GEMM and row["Estimated Speedup"]:
            best[row["Rule Name"]] = max(best.get(row["Rule Name"], 0.0), float(row["Estimated Speedup"]))
    told = {rule.name: rule.speedup_percent for rule in kernel.rules if rule.speedup_percent}
    assert told == best and [r.speedup_percent for r in kernel.rules if r.speedup_percent] == sorted(
        best.values(), reverse=True
    )
    assert kernel.speed.sm_percent == 90.418934, "the counters are the raw page's, whichever comes first"


def test_the_text_shows_each_number_in_its_own_column(found: dict[str, Inspection], raw: Path) -> None:
    value = column(raw, GEMM)

    def under(table: Any, row: int = 0) -> dict[str, str]:
        return dict(zip(table.header, table.rows[row], strict=True))

    k = found["gemm"]
    peaks = ("sm__throughput", "gpu__compute_memory_throughput", "lts__throughput", "gpu__dram_throughput")
    speed = under(shown._speed(k))
    assert [speed[name] for name in ("SM", "memory", "L2", "DRAM")] == [
        f"{value(f'{metric}.{PEAK}'):.2f}" for metric in peaks
    ]
    assert (speed["L1"], speed["DRAM throughput"]) == (f"{value(f'l1tex__throughput.{ACTIVE}'):.2f}", "1.007 TB/s")
    held = under(shown._occupancy(k))
    assert (held["theoretical %"], held["achieved %"]) == ("18.75", f"{value(f'sm__warps_active.{ACTIVE}'):.2f}")
    assert (held["limited by"], held["registers"], held["shared"], held["waves"]) == (
        "registers, shared memory",
        "168",
        "214.2 kB",
        "1.00",
    )
    done = under(shown._operations(k))
    assert (done["of one launch"], done["of peak"], done["bound by"]) == ("137.439 GFLOP", "90.4 %", "compute")
    moved = {row[0]: row for row in shown._memory(k).rows}
    assert moved["L1 to L2"] == ("L1 to L2", "1.6 GB", "33.6 MB", "73.45", "4.00", "4.00")
    assert moved["L2 to device memory"][1:4] == ("148.2 MB", "28.0 MB", "–")
    assert (
        under(shown._states(k))["state"].startswith("barrier")
        and under(shown._states(k))["cycles an instruction"] == "6.03"
    )
    pipes = {row[0]: row[1:] for row in shown._pipes(k).rows}
    assert pipes["alu"][0] == f"{value(f'sm__pipe_alu_cycles_active.{ACTIVE}'):.2f}" and pipes["lsu"] == (
        "–",
        f"{value(f'sm__inst_executed_pipe_lsu.{ACTIVE}'):.2f}",
    )


@given(st.dictionaries(st.sampled_from(["barrier", "wait", "membar", "gmma"]), st.floats(0, 1e6), max_size=4))
def test_shares_of_states_sum_to_one(cycles: dict[str, float]) -> None:
    told = states(
        {f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio": value for name, value in cycles.items()}
    )
    assert sum(s.share for s in told) == pytest.approx(1.0 if any(cycles.values()) else 0.0)
    assert [s.cycles for s in told] == sorted((v for v in cycles.values() if v), reverse=True)


def test_kernels_of_other_shapes_stand_apart() -> None:
    def row(launch: int, grid: str, value: float) -> dict[str, Any]:
        return {
            "launch": launch,
            "kernel": "k",
            "device": 0,
            "stream": 7,
            "grid": grid,
            "block": "(32, 1, 1)",
            "metric": "gpu__time_duration.sum",
            "unit": "ns",
            "value": value,
        }

    frame = pd.DataFrame(
        [row(0, "(4, 1, 1)", 5.0), row(1, "(8, 1, 1)", 100.0), row(2, "(4, 1, 1)", 9.0), row(3, "(4, 1, 1)", 6.0)]
    )
    assert [(c.grid, c.launches, c.values["gpu__time_duration.sum"]) for c in counted(frame, "^k$")] == [
        ((8, 1, 1), (1,), 100.0), ((4, 1, 1), (0, 2, 3), 6.0),
    ]  # fmt: skip
    assert counted(frame, "nothing") == ()
