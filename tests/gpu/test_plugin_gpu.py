"""The fixture on a real GPU: a healthy step passes, and each regression planted into it fails with its name.

Run with ``pytest -m gpu tests/test_plugin_gpu.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from moeprof.testing.errors import ProbeError
from moeprof.testing.fixture import Moeprof

pytestmark = pytest.mark.gpu
COPIED = 64 << 20  # bytes
GEMM = 4096
MATMUL = "gemm|nvjet|cutlass|xmma|sm[0-9]{2}_"  # what libraries call their matrix kernels


@dataclass
class Bench:
    """A copy in a stream of its own beside GEMMs that take half as long again as it does from pinned memory."""

    pinned: Any
    pageable: Any
    target: Any
    a: Any
    out: Any
    side: Any
    gemms: int

    def step(self, source: Any = None) -> None:
        import torch

        with torch.cuda.stream(self.side):
            self.target.copy_(self.pinned if source is None else source, non_blocking=True)
        for _ in range(self.gemms):
            torch.mm(self.a, self.a, out=self.out)


def milliseconds(run: Callable[[], object], times: int = 5) -> float:
    """Time of one call by CUDA events."""
    import torch

    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    run()
    marks[0].record()
    for _ in range(times):
        run()
    marks[1].record()
    torch.cuda.synchronize()
    return float(marks[0].elapsed_time(marks[1])) / times


@pytest.fixture(scope="module")
def bench() -> Bench:
    import torch

    a = torch.randn(GEMM, GEMM, device="cuda", dtype=torch.bfloat16) / GEMM**0.5
    pageable = torch.zeros(COPIED, dtype=torch.uint8)
    made = Bench(
        pageable.pin_memory(), pageable, torch.zeros_like(pageable, device="cuda"), a, torch.empty_like(a), torch.cuda.Stream(), 1
    )  # fmt: skip
    copy = milliseconds(lambda: made.target.copy_(made.pinned, non_blocking=True))
    gemm = milliseconds(lambda: torch.mm(a, a, out=made.out), 20)
    made.gemms = max(2, round(1.5 * copy / gemm))
    return made


def test_a_healthy_step_passes(moeprof: Moeprof, bench: Bench) -> None:
    # the first copy begins before the first GEMM: of few iterations it is a large share
    work = moeprof.record(bench.step, iterations=12)
    assert work.capture.device == "cuda"
    assert work.launches(exactly=bench.gemms) == bench.gemms
    work.kernels(MATMUL, exactly=bench.gemms)
    work.only_kernels(MATMUL)
    work.sync_calls(at_most=0)
    work.copy_overlap("H2D", at_least=0.9)
    work.throughput_tflop_per_s(flops=2 * GEMM**3 * bench.gemms, at_least=1)


def test_the_recorder_s_own_waits_are_not_counted(moeprof: Moeprof, bench: Bench) -> None:
    bench.step()  # still running when the block begins
    with moeprof.capture() as work:
        bench.step()  # still running when it ends
    work.sync_calls(exactly=0)
    work.launches(exactly=bench.gemms)
    work.kernels(exactly=bench.gemms)


def test_an_added_item_is_named(moeprof: Moeprof, bench: Bench) -> None:
    def step() -> None:
        bench.step()
        bench.out[0, 0].item()

    work = moeprof.record(step)
    with pytest.raises(AssertionError, match=r"(?s)sync_calls: 1; .*cudaStreamSynchronize inside aten::item"):
        work.sync_calls(at_most=0)


def test_a_pageable_copy_is_named(moeprof: Moeprof, bench: Bench) -> None:
    work = moeprof.record(lambda: bench.step(bench.pageable), iterations=6)
    with pytest.raises(AssertionError, match=r"(?s)copy_overlap H2D: .*pageable memory; try: pin the host buffer"):
        work.copy_overlap("H2D", at_least=0.9)


def test_an_extra_launch_is_named(moeprof: Moeprof, bench: Bench) -> None:
    def step() -> None:
        bench.step()
        bench.out.relu_()

    work = moeprof.record(step)
    with pytest.raises(AssertionError, match=rf"(?s)launches: {bench.gemms + 1}; .*aten::relu_"):
        work.launches(at_most=bench.gemms)
    with pytest.raises(AssertionError, match="elementwise"):
        work.only_kernels(MATMUL)


def test_a_missing_kernel_is_named(moeprof: Moeprof, bench: Bench) -> None:
    work = moeprof.record(bench.out.relu_)
    with pytest.raises(AssertionError, match=r"(?s)0; asserted: at least 1.*what ran:.*elementwise"):
        work.kernels(MATMUL, at_least=1)


def test_a_slower_step_is_told_and_the_same_step_is_not(moeprof: Moeprof, bench: Bench) -> None:
    import torch

    def slower() -> None:
        bench.step()
        torch.cuda._sleep(20_000_000)  # some 10 ms

    with pytest.raises(AssertionError, match="time ratio: "):
        moeprof.not_slower(slower, bench.step)
    assert moeprof.faster(bench.step, slower, by=1.2) > 1.2
    assert moeprof.not_slower(bench.step, slower) < 1


def test_a_throughput_beyond_the_machine_fails(moeprof: Moeprof, bench: Bench) -> None:
    work = moeprof.record(lambda: bench.target.add_(1))
    work.throughput_gb_per_s(bytes_moved=2 * COPIED, at_least=10)
    with pytest.raises(AssertionError, match="95 % interval"):
        work.throughput_gb_per_s(bytes_moved=2 * COPIED, at_least=1e6)


def test_a_graph_is_one_launch_and_its_kernels_are_known(moeprof: Moeprof, bench: Bench) -> None:
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(4):
            torch.mm(bench.a, bench.a, out=bench.out)
    work = moeprof.record(graph.replay)
    work.launches(exactly=1)
    work.kernels(MATMUL, exactly=4)


def test_a_block_that_leaves_the_gpu_alone_is_refused(moeprof: Moeprof) -> None:
    import torch

    with pytest.raises(ProbeError, match="no work ran on the GPU"), moeprof.capture():
        torch.ones(64).add_(1)
    with moeprof.capture(may_be_empty=True) as work:
        torch.ones(64).add_(1)
    work.launches(exactly=0)
    work.kernels(exactly=0)
    with pytest.raises(AssertionError, match="not known here: no copy ran"):
        work.copy_overlap(at_least=0)


@pytest.mark.moeprof_gpu
def test_the_marker_lets_a_test_run_here(moeprof: Moeprof, bench: Bench) -> None:
    moeprof.record(bench.step).kernels(at_least=1)
