"""FLOPs from counters: real ones of an H200, what each instruction counts for, and every way in which they cannot be known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from builders.counted_captures import NOTHING
from hypothesis import given
from hypothesis import strategies as st

from moeprof.kernels import flops
from moeprof.kernels.flops import of
from moeprof.machine import ncu_metrics
from moeprof.machine.ncu_metrics import PIPES, SASS, TENSOR, TENSOR_PIPE
from moeprof.trace.ncu.counters import read_counters

BF16 = f"{TENSOR}bf16_dst_fp32.sum"
BARE = {**NOTHING, TENSOR_PIPE: 0.0}


def sass(op: str) -> str:
    return f"{SASS.format(op)}.sum"


@pytest.fixture(scope="module")
def h200(traces: Path) -> pd.DataFrame:
    return read_counters(traces / "h200" / "ncu_raw.csv")


def test_a_gemm_of_4096_cubed_has_two_operations_a_multiply_add(h200: pd.DataFrame) -> None:
    found = flops.flops(h200[h200["launch"] == 0])
    assert found.total == 2 * 4096**3 and found.pipe == "tensor bf16" and found.by_pipe == {"tensor bf16": 2 * 4096**3}


def test_a_softmax_counts_its_fused_multiply_adds_twice(h200: pd.DataFrame) -> None:
    found = flops.flops(h200[h200["launch"] == 1])
    once = {"fadd": 89_064_039, "fmul": 16_777_216, "ffma": 237_998_900}  # thread instructions, as ncu gave them
    assert found.by_pipe["fp32"] == pytest.approx(once["fadd"] + once["fmul"] + 2 * once["ffma"], rel=1e-6)
    assert once["fmul"] == 4096**2  # one scaling an element: the counters are of threads, not of warps
    assert found.total == pytest.approx(found.by_pipe["fp32"] + found.by_pipe["fp16"]) and not found.reason


@pytest.mark.parametrize(("op", "each"), [(op, each) for weights in PIPES.values() for op, each in weights.items()])
@pytest.mark.parametrize("count", [0.0, 3e6])
def test_what_an_instruction_counts_for(op: str, each: int, count: float) -> None:
    lanes = 2 if op.startswith("h") or op.endswith("2") else 1
    assert each == lanes * (2 if "fma" in op else 1)
    assert of({**BARE, sass(op): count}).total == each * count


@given(
    st.dictionaries(st.sampled_from([sass(op) for w in PIPES.values() for op in w] + [BF16]), st.floats(0, 1e12)),
    st.floats(0.5, 4),
)
def test_flops_grow_with_every_counter_and_with_nothing_else(counts: dict[str, float], scale: float) -> None:
    values = {**BARE, **counts}
    one, more = of(values).total, of({name: scale * n for name, n in values.items()}).total
    assert one is not None and more == pytest.approx(scale * one)
    others = {
        "smsp__inst_executed.sum": 1e9,
        "sm__inst_executed_pipe_tensor.sum": 1e9,
        "smsp__sass_thread_inst_executed.sum": 1e9,
    }
    assert of({**values, **others}).total == one, "instructions are no FLOPs"
    if BF16 in values:
        refined = BF16.replace(".sum", "_sparsity_off.sum")
        assert of({**values, refined: values[BF16]}).total == one, "a refinement is part of what it refines"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "did not count smsp__sass_thread_inst_executed_op_fadd_pred_on.sum and 8 more"),
        ({**BARE, sass("dfma"): None}, "did not count smsp__sass_thread_inst_executed_op_dfma_pred_on.sum"),
        (NOTHING, "did not count tensor operations"),
        ({**NOTHING, TENSOR_PIPE: 12.0}, "did not count tensor operations"),
        ({**BARE, f"{TENSOR}int8.sum": 5.0}, "integer"),
    ],
)
def test_what_was_not_counted_has_no_sum_but_a_reason(values: dict[str, float | None], words: str) -> None:
    found = of({name: n for name, n in values.items() if n is not None})
    assert found.total is None and words in found.reason


def test_an_idle_tensor_pipe_did_nothing_and_packed_fp32_may_be_unknown() -> None:
    old = {
        name: n
        for name, n in BARE.items()
        if not name.endswith(("fadd2_pred_on.sum", "fmul2_pred_on.sum", "ffma2_pred_on.sum"))
    }
    assert of({**old, sass("fadd"): 7.0}).total == 7.0


def test_only_names_that_the_chip_has_are_asked_for(h200: pd.DataFrame) -> None:
    known = {str(m).partition(".")[0] for m in h200["metric"].cat.categories}
    asked = ncu_metrics.roofline_metrics(known)
    assert {m.partition(".")[0] for m in asked} <= known and len(set(asked)) == len(asked)
    tensor = {m for m in asked if m.startswith(TENSOR)}
    assert tensor == {
        f"{TENSOR}{kind}.sum"
        for kind in ("bf16_dst_fp32", "fp16", "fp64", "fp8_sparsity_off", "fp8_sparsity_on", "int8", "tf32_dst_fp32")
    }
    assert {sass(op) for op in ("ffma", "dadd", "hmul")} <= set(asked) and sass("ffma2") not in asked
    assert ncu_metrics.roofline_metrics(()) == ()
