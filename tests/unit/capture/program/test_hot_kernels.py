"""Which launches of a program ncu counts."""

from __future__ import annotations

import pandas as pd
import pytest

from moeprof.capture.commands import Launches
from moeprof.capture.program.hot_kernels import chosen, function_name


def launched(*rows: tuple[str, int], pid: int = 1) -> pd.DataFrame:
    """Kernels one after another, (name, duration)."""
    table = pd.DataFrame(rows, columns=["name", "duration"])
    table["start_ns"] = range(0, 1000 * len(rows), 1000)
    table["end_ns"] = table["start_ns"] + table["duration"]
    return table.assign(pid=pid, name=table["name"].astype("category"))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::(anonymous namespace)::f(int)::{lambda(float)#1}>(int, T1)", "vectorized_elementwise_kernel"),
        ("nvjet_tst_128x64", "nvjet_tst_128x64"), ("void (anonymous namespace)::softmax<float, 8>(T1 *)", "softmax"),
        ("gemm", "gemm"), ("void cutlass::Kernel2<cutlass_80_gemm<1>>(T1::Params)", "Kernel2"), ("std::enable_if<!a<b>, void>::type ns::go<int>(int)", "go"),
    ],
)  # fmt: skip
def test_the_name_is_that_which_ncu_matches(name: str, function: str) -> None:
    assert function_name(name) == function


def test_the_load_is_not_counted_and_the_launches_lie_close_together() -> None:
    load = [("void fill(int)", 900), ("void load(int)", 900), ("void fill(int)", 900)] * 2
    step = [("void big<1>(int)", 500), ("void small(int)", 5), ("void mid(int)", 90)]
    found = chosen(launched(*load, *step * 4), 2)
    # of big and mid alone: 4 steps launch 8; the later half begins at launch 9 of all, where 2 of them have run
    assert found == Launches(("big", "mid"), 2, 2)


def test_only_the_process_that_works_most_counts() -> None:
    both = pd.concat([launched(*[("a()", 10)] * 4, pid=1), launched(*[("b()", 500)] * 4, pid=2)])
    assert chosen(both, 3).names == ("b",)


def test_one_function_with_two_instances_is_matched_once_and_both_are_met() -> None:
    rows = [("void k<1>(int)", 50), ("void k<2>(int)", 40)] * 4
    assert chosen(launched(*rows), 2) == Launches(("k",), 4, 2)
