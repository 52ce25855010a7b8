"""What a kernel that only moves memory is called, by its name."""

from __future__ import annotations

import pytest

from moeprof.findings.rules.memory import kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void at::native::vectorized_gather_kernel<(int)16, int>(char *)", "gather"),
        ("triton_poi_fused_clamp_index_view_10", "gather"),
        ("triton_poi_fused_index_put_3", "scatter"),
        ("void at::native::<unnamed>::indexSelectSmallIndex<c10::BFloat16>", "gather"),
        ("void at::native::<unnamed>::CatArrayBatchedCopy<float>", "concatenation"),
        ("triton_poi_fused_cat_5", "concatenation"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<float>", "transpose"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copy"),
    ],
)
def test_the_name_tells_the_kind(name: str, kind: str) -> None:
    assert kind_of(name)[0] == kind
