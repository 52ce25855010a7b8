"""Short names of kernels: different names stay different, in 60 characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import TRACES

from moeprof.report.kernel_names import LIMIT, labels
from moeprof.trace import read

ELEMENTWISE = "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<at::native::{}>>(int, T1)"


def test_what_differs_is_in_the_label() -> None:
    names = [ELEMENTWISE.format(functor) for functor in ("MulFunctor<float>", "AddFunctor<float>", "AddFunctor<half>")]
    found = labels(names)
    assert found[names[0]] == "elementwise_kernel · MulFunctor"
    assert len(set(found.values())) == 3 and "half" in found[names[2]]


def test_wrappers_of_cutlass_can_be_told_apart() -> None:
    names = [
        f"void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_{tile}_nn_align8>(T1::Params)"
        for tile in ("256x128_32x3", "64x64_64x6")
    ]
    found = labels(names)
    assert "256x128_32x3" in found[names[0]] and "64x64_64x6" in found[names[1]]


def test_a_lone_name_is_the_function_and_equal_words_are_numbered() -> None:
    assert labels(["void a::k<int>(int)"]) == {"void a::k<int>(int)": "k"}
    found = labels(["void k<1, 2>(int)", "void k<2, 1>(int)"])
    assert sorted(found.values()) == ["k #1", "k #2"]
    assert labels(reversed(list(found))) == found


@given(st.lists(st.text(alphabet="kab<>(),:_ 12", min_size=1, max_size=120), min_size=1, max_size=12))
def test_labels_are_short_and_different(names: list[str]) -> None:
    found = labels(names)
    assert set(found) == set(names) and len(set(found.values())) == len(found)
    assert all(len(label) <= LIMIT for label in found.values())
    assert labels(reversed(names)) == found, "the order of the names does not matter"


@pytest.mark.parametrize(
    "name", ["nsys/mfu_2gpu_after.sqlite", "kineto/hta_diff_control.json.gz", "nsys/cloverleaf_a100_2024.5.sqlite"]
)
def test_real_names_can_be_told_apart(name: str) -> None:
    if not (TRACES / name).is_file():
        pytest.skip(f"the real traces are absent: {TRACES}")
    names = {str(n) for n in read(TRACES / name).ops["name"].unique()}
    found = labels(names)
    assert len(set(found.values())) == len(names) and max(map(len, found.values())) <= LIMIT
