"""Steps one by one: their ledgers sum, and a slow one is explained by what it has more of."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.trace_tables import trace
from paths import TRACES
from recorded import recordings

from moeprof.analysis.device import views
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Passes
from moeprof.analysis.passes import median_place, passes_of
from moeprof.trace import Trace, read

US = 1_000


def loop(late: int = -1, long: int = -1, place: int = 1) -> Trace:
    """Twelve steps of three kernels: in step ``late`` the host launches the kernel at ``place`` 300 us late, in step ``long``
    the third one takes 200 us more."""
    ops, calls, ranges = [], [], []
    now = 0
    for step in range(12):
        ranges.append({"start_ns": now, "name": f"step {step}", "domain": ""})
        for number, (name, usual) in enumerate((("flash_fwd", 40), ("gemm", 60), ("norm", 20))):
            wait = 300 if step == late and number == place else 2
            length = usual + (200 if step == long and number == 2 else 0)
            calls.append({"start_ns": now + wait * US, "end_ns": now + (wait + 3) * US})
            start = now + (wait + 4) * US
            ops.append({"start_ns": start, "end_ns": start + length * US, "name": name, "call": len(calls) - 1})
            now = start + length * US
        ranges[-1]["end_ns"] = now
    return trace(ops, calls, ranges)


def found(shown: Trace) -> Passes:
    passes = passes_of(shown, views(shown)[0])
    assert passes is not None
    return passes


def test_a_late_launch_is_named_as_the_reason() -> None:
    passes = found(loop(late=7))
    slow = passes.slow[0]
    assert (passes.what, len(passes.passes), slow.index, slow.longer_ns) == ("step", 12, 7, 298 * US)
    reason = slow.excess[0]
    assert (reason.kind, reason.name, reason.ns, reason.count) == ("idle", "host: outside CUDA", 298 * US, 0)


def test_the_gap_after_a_step_is_its_own() -> None:
    passes = found(loop(late=7, place=0))
    slow = passes.slow[0]
    assert (slow.index, slow.longer_ns) == (6, 298 * US), "step 7 begins late, so step 6 is long"
    assert [(e.kind, e.name, e.ns) for e in slow.excess] == [("idle", "host: outside CUDA", 298 * US)]
    assert passes.passes[6].idle.edge_ns == 0


def test_a_long_kernel_is_named_as_the_reason() -> None:
    slow = found(loop(long=4)).slow[0]
    assert (slow.index, slow.longer_ns) == (4, 200 * US)
    assert [(e.kind, e.name, e.ns, e.count) for e in slow.excess] == [("kernel", "norm", 200 * US, 0)]


def test_equal_steps_have_no_slow_one() -> None:
    assert found(loop()).slow == ()


def test_nothing_that_repeats_has_no_steps() -> None:
    shown = trace([{"start_ns": i, "end_ns": i + 1, "name": f"k{i}"} for i in range(9)])
    assert passes_of(shown, views(shown)[0]) is None


@pytest.mark.parametrize(
    "name", ["sync-item-faulty", "tiny-copies-faulty", "late-issue-faulty", "graph-opportunity-faulty"]
)
def test_the_ledger_of_a_step_is_that_of_its_window(name: str) -> None:
    shown = recordings.trace(name)
    for view in views(shown):
        passes = passes_of(shown, view)
        if passes is None:
            continue
        for one in passes.passes:
            window = ledger(view, one.start_ns, one.end_ns)
            assert one.ledger == window and sum(vars(window).values()) == one.span_ns
            assert sum(vars(one.idle).values()) == window.idle_ns
            assert sum(one.compute.values()) == window.compute_ns
        first, last = passes.passes[0], passes.passes[-1]
        whole = idle(view, first.start_ns, last.end_ns)
        for cause in ("launch_ns", "sync_ns", "host_ns", "dependency_ns"):
            assert sum(getattr(p.idle, cause) for p in passes.passes) == getattr(whole, cause), (
                "no gap is lost between steps"
            )


def test_the_slow_pass_of_a_real_trace_is_explained() -> None:
    path = TRACES / "nsys" / "mfu_2gpu_after.sqlite"
    if not path.is_file():
        pytest.skip(f"the real traces are absent: {TRACES}")
    shown = read(Path(path))
    passes = passes_of(shown, views(shown)[0])
    assert passes is not None
    reason = passes.slow[0].excess[0]
    assert (reason.kind, reason.name, reason.count) == ("idle", "launch: cudaMemsetAsync", 1)
    assert 5_600 * US < reason.ns < 5_700 * US < passes.slow[0].longer_ns


def test_the_median_of_two_is_the_shorter() -> None:
    assert median_place([5, 1, 9, 4]) == 3 and median_place([2, 2, 2]) == 1
