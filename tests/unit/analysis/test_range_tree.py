"""GPU time by range: against a walk over every operation, and folding of names."""

from __future__ import annotations

from typing import Any

import pytest
from builders.trace_tables import trace, traces
from hypothesis import given
from hypothesis import strategies as st
from recorded import recordings

from moeprof.analysis.device import views
from moeprof.analysis.model import RangeNode
from moeprof.analysis.range_tree import fold, range_tree
from moeprof.trace import Trace


def paths(nodes: tuple[RangeNode, ...]) -> dict[tuple[str, ...], RangeNode]:
    """Each node by the names from the top down to it."""
    found: list[tuple[str, ...]] = []
    for node in nodes:
        found.append((*(found[node.parent] if node.parent is not None else ()), node.name))
    return dict(zip(found, nodes, strict=True))


def layered() -> Trace:
    """Three layers, each a range with an attention and an MLP in it; a kernel in each, one between them, one outside."""
    ops, calls, ranges = [], [], []

    def launch(at: int, start: int, length: int, name: str) -> None:
        calls.append({"start_ns": at, "end_ns": at + 2, "correlation": len(calls)})
        ops.append({"start_ns": start, "end_ns": start + length, "name": name, "call": len(calls) - 1})

    for layer in range(3):
        zero = 1_000 * layer
        ranges.append({"start_ns": zero, "end_ns": zero + 900, "name": f"layers.{layer}", "domain": ""})
        ranges.append({"start_ns": zero + 10, "end_ns": zero + 200, "name": f"layers.{layer}.attn", "domain": ""})
        ranges.append({"start_ns": zero + 200, "end_ns": zero + 400, "name": f"layers.{layer}.mlp", "domain": ""})
        launch(zero + 20, zero + 100, 50, "attention")
        launch(zero + 220, zero + 300, 100, "gemm")
        launch(zero + 500, zero + 600, 20, "norm")
        launch(zero + 950, zero + 960, 5, "copy_kernel")
    return trace(ops, calls, ranges)


def test_layers_fold_into_one_row_and_keep_their_time() -> None:
    shown = layered()
    found = paths(range_tree(shown, views(shown)))
    top = ("all GPU work",)
    assert found[top].gpu_ns == 3 * 175
    layers = found[(*top, "layers.*")]
    assert (layers.instances, layers.gpu_ns) == (3, 3 * 170)
    assert found[(*top, "layers.*", "layers.*.attn")].gpu_ns == 150
    assert found[(*top, "layers.*", "layers.*.mlp", "gemm")].gpu_ns == 300
    assert found[(*top, "layers.*", "norm")].gpu_ns == 60, "what a range launches itself is below it"
    outside = found[(*top, "outside any range")]
    assert (outside.gpu_ns, outside.kind, outside.instances) == (15, "outside", 3)


def test_a_range_that_ends_where_the_next_one_begins_is_not_around_it() -> None:
    calls = [{"start_ns": 100, "end_ns": 101}, {"start_ns": 150, "end_ns": 151}]
    ops = [{"start_ns": 200, "end_ns": 210, "call": 0}, {"start_ns": 300, "end_ns": 330, "call": 1}]
    ranges = [{"start_ns": 0, "end_ns": 100, "name": "a"}, {"start_ns": 100, "end_ns": 200, "name": "b"}]
    shown = trace(ops, calls, ranges)
    found = paths(range_tree(shown, views(shown)))
    assert found[("all GPU work", "moeprof@b")].gpu_ns == 40 and ("all GPU work", "moeprof@a") not in found


def test_a_launch_at_the_end_of_a_range_is_outside() -> None:
    calls = [{"start_ns": 100, "end_ns": 101}, {"start_ns": 50, "end_ns": 51}]
    ops = [{"start_ns": 200, "end_ns": 210, "call": 0}, {"start_ns": 120, "end_ns": 121, "call": 1}]
    shown = trace(ops, [calls[1], calls[0]], [{"start_ns": 0, "end_ns": 100, "name": "a", "domain": ""}])
    shown.ops["call"] = [0, 1]
    found = paths(range_tree(shown, views(shown)))
    assert found[("all GPU work", "outside any range")].gpu_ns == 10 and found[("all GPU work", "a")].gpu_ns == 1


def test_start_end_ranges_do_not_nest_and_are_left_out() -> None:
    ranges = [{"start_ns": 0, "end_ns": 100, "name": "free", "style": "startend"}]
    shown = trace([{"start_ns": 20, "end_ns": 30, "call": 0}], [{"start_ns": 10, "end_ns": 11}], ranges)
    assert range_tree(shown, views(shown)) == ()


def test_the_ranges_of_another_thread_do_not_count() -> None:
    calls = [{"start_ns": 10, "end_ns": 11, "tid": 2}, {"start_ns": 20, "end_ns": 21, "tid": 1}]
    ops = [{"start_ns": 50, "end_ns": 60, "call": 0}, {"start_ns": 70, "end_ns": 71, "call": 1}]
    shown = trace(ops, calls, [{"start_ns": 0, "end_ns": 100, "name": "a", "tid": 1}])
    found = paths(range_tree(shown, views(shown)))
    assert found[("all GPU work", "moeprof@a")].gpu_ns == 1
    assert found[("all GPU work", "outside any range")].gpu_ns == 10


def test_no_range_with_work_is_no_tree() -> None:
    assert range_tree(trace([]), ()) == ()
    idle = trace([{"start_ns": 0, "end_ns": 5, "call": -1}], [], [])
    assert range_tree(idle, views(idle)) == ()


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("FlashAttnFunc, seq = 46588, op_id = 995009", "FlashAttnFunc"),
        ("model.layers.12.mlp.experts.3", "model.layers.*.mlp.experts.*"),
        ("step_12", "step_*"), ("layer7", "layer*"), ("ProfilerStep#6", "ProfilerStep#*"),
        ("execute_32_context_0(sq0sk0)_generation_32(sq32sk55086)", "execute_*_context_*(*)_generation_*(*)"),
        ("conv2d bf16 float32", "conv2d bf16 float32"), ("object at 0x7f3a", "object at *"), ("aten::mul", "aten::mul"),
    ],
)  # fmt: skip
def test_what_counts_is_folded_and_what_names_is_kept(name: str, folded: str) -> None:
    assert fold(name) == folded


def test_a_name_that_nothing_folds_onto_stays() -> None:
    shown = trace(
        [{"start_ns": 5, "end_ns": 9, "call": 0}],
        [{"start_ns": 1, "end_ns": 2}],
        [{"start_ns": 0, "end_ns": 4, "name": "step 7", "domain": ""}],
    )
    assert [n.name for n in range_tree(shown, views(shown))][1] == "step 7"


def slow_tree(shown: Trace) -> dict[str, int]:
    """The GPU time of each innermost range, operation by operation."""
    spent: dict[str, int] = {}
    for view in views(shown):
        covered = -1
        for op in view.ops.itertuples():
            busy = max(op.end_ns - max(op.start_ns, covered), 0)
            covered = max(covered, op.end_ns)
            call = shown.calls.iloc[op.call] if op.call >= 0 else None
            around = [
                r for r in shown.ranges.itertuples()
                if call is not None and r.tid == call.tid and r.start_ns <= call.start_ns < r.end_ns
            ]  # fmt: skip
            inner = min(around, key=lambda r: (r.end_ns - r.start_ns, -r.start_ns), default=None)
            spent[inner.name if inner else ""] = spent.get(inner.name if inner else "", 0) + busy
    return spent


@st.composite
def nested(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Properly nested ranges of two threads, each of its own name."""
    rows: list[dict[str, Any]] = []

    def fill(start: int, end: int, tid: int, depth: int) -> None:
        at = start
        while at < end - 1 and depth < 3 and draw(st.booleans()):
            low = draw(st.integers(at, end - 1))
            high = draw(st.integers(low + 1, end))
            if (low, high) != (start, end):
                rows.append(
                    {
                        "start_ns": low,
                        "end_ns": high,
                        "name": f"r{'abcdefghijklmnopqrstuvwxyz'[len(rows) % 26]}{'x' * (len(rows) // 26)}",
                        "tid": tid,
                        "domain": "",
                    }
                )
                fill(low, high, tid, depth + 1)
            at = high

    for tid in (1, 2):
        fill(0, 60, tid, 0)
    return rows


@given(traces(), nested())
def test_the_tree_is_that_of_a_walk_over_every_operation(made: Trace, ranges: list[dict[str, Any]]) -> None:
    shown = Trace(made.path, made.kind, None, None, made.ops, made.calls, trace([], None, ranges).ranges)
    nodes = range_tree(shown, views(shown))
    expected = slow_tree(shown) if len(shown.calls) else {}
    if not nodes:
        assert not set(expected) - {""}
        return
    assert nodes[0].gpu_ns == sum(view.busy.total_ns for view in views(shown))
    own: dict[str, int] = {}
    for number, node in enumerate(nodes):
        below = sum(n.gpu_ns for n in nodes if n.parent == number)
        assert below <= node.gpu_ns
        if node.kind == "range":
            own[node.name] = own.get(node.name, 0) + node.gpu_ns - sum(
                n.gpu_ns for n in nodes if n.parent == number and n.kind == "range"
            )  # fmt: skip
    if len(shown.calls):
        assert {k: v for k, v in own.items() if v} == {k: v for k, v in expected.items() if v and k}


@pytest.mark.parametrize("name", ["late-issue-faulty", "startend", "sync-item-faulty"])
def test_parts_fit_into_their_whole_in_recordings(name: str) -> None:
    shown = recordings.trace(name)
    nodes = range_tree(shown, views(shown))
    for number, node in enumerate(nodes):
        assert sum(n.gpu_ns for n in nodes if n.parent == number) <= node.gpu_ns
        assert node.parent is None or node.parent < number
