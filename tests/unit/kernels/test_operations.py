"""Operations of a kernel, their rates and peaks, and its place under the roofs, against what the GEMM must have done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders.ncu_pages import GEMM, GEMM_SASS, SOFTMAX, column

from moeprof.kernels.counters import counted
from moeprof.kernels.inspection import WANTED, Inspection, inspections
from moeprof.kernels.operations import operations, operations_of, uncounted
from moeprof.machine.ncu_metrics import CYCLES, SASS
from moeprof.trace.ncu.counters import read_counters
from moeprof.trace.ncu.pages import read_pages


@pytest.fixture(scope="module")
def raw(traces: Path) -> Path:
    return traces / "h200" / "ncu_raw.csv"


@pytest.fixture(scope="module")
def found(raw: Path) -> dict[str, Inspection]:
    return {("gemm" if k.kernel == GEMM else "softmax"): k for k in inspections(read_pages([raw]), ".", WANTED)}


PEAK, ACTIVE = "avg.pct_of_peak_sustained_elapsed", "avg.pct_of_peak_sustained_active"
LSU = "l1tex__t_{}_pipe_lsu_mem_global_op_{}.sum"


def test_the_tensor_operations_of_the_gemm_are_two_m_n_k(found: dict[str, Inspection], raw: Path) -> None:
    """M x N from the bytes of C that it stored, K from the bytes that its 256 x 128 tiles of A and B loaded."""
    value = column(raw, GEMM)
    m_times_n = (value("l1tex__m_l1tex2xbar_write_bytes_mem_global_op_tma_st.sum") or 0) / 2
    tile = [int(n) for n in re.findall(r"\d+x\d+", GEMM)[0].split("x")]
    k = (
        (value("l1tex__m_xbar2l1tex_read_bytes_mem_global_op_tma_ld.sum") or 0)
        / 2
        / sum(tile)
        / (m_times_n / (tile[0] * tile[1]))
    )
    assert (m_times_n, round(k)) == (4096 * 4096, 4096)
    (tensor,) = found["gemm"].flops
    assert tensor.precision == "tensor bf16" and tensor.origin == "counted"
    assert tensor.count == pytest.approx(2 * m_times_n * 4096, rel=0.03)


def test_the_peak_is_that_of_dense_operands_and_agrees_with_the_busy_pipe(
    found: dict[str, Inspection], raw: Path
) -> None:
    (tensor,) = found["gemm"].flops
    busy = column(raw, GEMM)(f"sm__pipe_tensor_cycles_active.{PEAK}")
    assert tensor.per_s is not None and tensor.peak_per_s is not None and busy is not None
    assert 100 * tensor.per_s / tensor.peak_per_s == pytest.approx(busy, rel=1e-3)
    (roof,) = found["gemm"].roofs
    assert roof.bound == "compute" and roof.intensity == pytest.approx(
        2 * 4096**3 / (found["gemm"].memory.dram_bytes or 1)
    )
    assert roof.of_roof == pytest.approx(busy / 100, rel=1e-3)


def test_thread_operations_are_ncus_own_derived_counts(found: dict[str, Inspection], raw: Path) -> None:
    value = column(raw, SOFTMAX)

    def rate(op: str) -> float:
        return value(f"smsp__sass_thread_inst_executed_op_{op}_pred_on.sum.per_cycle_elapsed") or 0.0

    cycles = value("smsp__cycles_elapsed.avg") or 0.0
    assert rate("fmul") * cycles == pytest.approx(4096 * 4096, rel=1e-4), "softmax scales each element once"
    ffma_x2 = value("derived__smsp__sass_thread_inst_executed_op_ffma_pred_on_x2") or 0.0
    hfma_x4 = value("derived__smsp__sass_thread_inst_executed_op_hfma_pred_on_x4") or 0.0
    by = {f.precision: f for f in found["softmax"].flops}
    assert set(by) == {"fp32", "fp16"}, "nothing in fp64, and no tensor operation"
    assert by["fp32"].count == pytest.approx((rate("fadd") + rate("fmul") + ffma_x2) * cycles, rel=1e-3)
    assert by["fp16"].count == pytest.approx(hfma_x4 * cycles, rel=1e-3) and by["fp32"].origin == "rate x cycles"
    assert found["softmax"].roofs[0].bound == "DRAM"


def test_counted_instructions_are_preferred_to_rates() -> None:
    name = f"{SASS}.sum"
    given = {name.format("fadd"): 10.0, name.format("fmul"): 3.0, name.format("ffma"): 100.0}
    (only,) = operations({**given, f"{name.format('ffma')}.per_cycle_elapsed": 7.0, CYCLES: 5.0}, 1000.0)
    assert (only.count, only.per_s, only.origin, only.peak_per_s) == (213.0, 213e6, "counted", None)
    (half,) = operations({name.format(op): 1.0 for op in ("hadd", "hmul", "hfma")}, None)
    assert (half.precision, half.count, half.per_s) == ("fp16", 8.0, None)


def test_tensor_paths_are_counted_once_and_integers_are_no_flops() -> None:
    path = "sm__ops_path_tensor_src_{}.sum"
    given = {
        path.format("fp16"): 60.0,
        path.format("fp16_dst_fp32"): 40.0,
        path.format("int8"): 9.0,
        path.format("fp8_sparsity_on"): 7.0,
    }
    assert [(f.precision, f.count) for f in operations(given, None)] == [
        ("tensor fp16", 60.0),
        ("tensor fp8 sparse", 7.0),
    ]


def test_where_no_counter_tells_the_shapes_of_the_sass_do(found: dict[str, Inspection], raw: Path) -> None:
    frame = read_counters(raw)
    bare = frame[~frame["metric"].astype(str).str.startswith("sm__ops_path")]
    (kernel,) = counted(bare, "nvjet")
    sass = [(text, executed) for _, text, _, executed, _ in GEMM_SASS]
    (tensor,) = operations(kernel.values, 1.0, sass)
    assert tensor.count == 2 * 4096**3 and tensor.origin.startswith("shapes")
    assert uncounted(kernel.values, [tensor]) == ()
    assert [clause.partition(":")[0] for clause in uncounted(kernel.values, operations(kernel.values, 1.0))] == [
        "tensor"
    ]
    assert operations(dict(kernel.values) | {"sm__ops_path_tensor_src_fp16.sum": 5.0}, 1.0, sass)[0].count == 5.0, (
        "a counter is believed first"
    )


@pytest.mark.parametrize(
    ("instruction", "count"),
    [
        ("HMMA.16816.F32.BF16 R4, R8, R2, R4", 4096), ("@P0 HMMA.1688.F32 R4, R8, R2, R4", 2048), ("HMMA.884.F32.F32.STEP0 R4, R8, R2", 512),
        ("DMMA.884 R4, R8, R2, R4", 512), ("HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8]", 131072), ("QGMMA.64x64x32.F32.E4M3 R24", 65536),
        ("IMMA.16832.S8 R4", 0), ("FFMA R1, R2, R3, R4", 0), ("HMMA.9999 R1", 0), ("", 0), ("HGMMA", 0),
    ],
)  # fmt: skip
def test_operations_of_one_instruction(instruction: str, count: int) -> None:
    assert operations_of(instruction) == count
