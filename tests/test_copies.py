"""Which streams count as those of the kernels when a copy in them is exposed."""

from __future__ import annotations

import pytest
from tracetables import trace

from moeprof.metrics.analyze import analyze

CALLS = [{"start_ns": 0, "end_ns": 1}, {"start_ns": 2, "end_ns": 3, "name": "cudaMemcpyAsync"}]
COPY = {"kind": "copy", "direction": "D2H", "stream": 13, "src_memory": "device", "dst_memory": "pinned", "call": 1}
COMPUTE = [{"start_ns": 10, "end_ns": 1000, "call": 0}, {"start_ns": 1200, "end_ns": 2200, "call": 0}]


@pytest.mark.parametrize(
    ("compute", "signal_ns", "cause"),
    [
        (COMPUTE, 4, "dependency"),  # a signal after the copy: 4 of 104 ns in its stream, 4 of 1,994 of all kernels
        (COMPUTE, 8, "same_stream"),  # 8 of 108
        ([*COMPUTE[:1], {"start_ns": 1200, "end_ns": 1202, "call": 0, "stream": 13}], 2, "dependency"),
        ([], 4, "same_stream"),  # small, and all the kernels that there are
    ],
)
def test_signals_between_copies_do_not_make_a_stream_one_that_computes(
    compute: list[dict[str, object]], signal_ns: int, cause: str
) -> None:
    copy = COPY | {"start_ns": 1050, "end_ns": 1150}
    signal = {"start_ns": 1160, "end_ns": 1160 + signal_ns, "call": 0, "stream": 13}
    last = {"start_ns": 2300, "end_ns": 2301, "call": 0, "stream": 7 if compute else 13}
    (found,) = analyze(trace([*compute, copy, signal, last], CALLS)).windows[0].copies
    assert list(found.why_exposed) == [cause]
