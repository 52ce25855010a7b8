"""Launch calls that load code are loading, not launch overhead."""

from __future__ import annotations

from typing import Any

import pytest
from builders.trace_tables import trace as made

from moeprof.analysis.device import views
from moeprof.analysis.model import Finding
from moeprof.findings import find
from moeprof.findings.what_if import Scene, scenes_of

US, MS = 1_000, 1_000_000


def begun(kinds: int, load_ns: int, nested: bool = False, beside: bool = False, launches: int = 1) -> Scene:
    """A program that begins: each of ``kinds`` kernels of 100 us is launched ``launches`` times, in turn.

    The first launch of each takes ``load_ns``; ``nested``: a cuLibraryLoadData lies inside of it; ``beside``: before it instead.
    """
    ops: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    at = 0
    for turn in range(launches):
        for kind in range(kinds):
            length = 6 * US
            if turn == 0 and (nested or beside):
                calls.append({"start_ns": at + US, "end_ns": at + load_ns - US, "name": "cuLibraryLoadData"})
            if turn == 0 and beside:
                at += load_ns
            elif turn == 0:
                length = load_ns
            calls.append(
                {"start_ns": at, "end_ns": at + length, "name": "cudaLaunchKernel", "correlation": len(ops) + 1}
            )
            begin = max(at + length + 2 * US, ops[-1]["end_ns"] if ops else 0)
            ops.append({
                "start_ns": begin, "end_ns": begin + 100 * US, "name": f"kernel {kind}", "correlation": len(ops) + 1,
                "grid_x": 132, "block_x": 128,
            })  # fmt: skip
            at += length
    order = sorted(range(len(calls)), key=lambda n: (calls[n]["start_ns"], -calls[n]["end_ns"]))
    calls = [calls[n] for n in order]
    place = {call["correlation"]: n for n, call in enumerate(calls) if "correlation" in call}
    shown = made([op | {"call": place[op["correlation"]]} for op in ops], calls)
    (scene,) = scenes_of(shown, views(shown))
    return scene


def launching(scene: Scene) -> list[Finding]:
    findings = [f for finding in find.find([scene]) for f in finding.all]
    return [f for f in findings if f.id in ("launch-bound", "graph-opportunity")]


@pytest.mark.parametrize("form", ["long", "nested", "beside"])
def test_first_launches_that_load_code_are_no_launch_overhead(form: str) -> None:
    scene = begun(16, 20 * MS, nested=form == "nested", beside=form == "beside")
    assert scene.idle_ns > 0.9 * scene.span, "the GPU waits for the loading"
    assert scene.host.loads_code[1:].all() and scene.launch_gain == 0  # the first may load before the judged part
    assert launching(scene) == []


def test_short_nested_loads_are_loads_too() -> None:
    assert begun(16, 80 * US, nested=True).host.loads_code.all()
    assert not begun(16, 80 * US).host.loads_code.any(), "a first launch of 80 us may be slow for another reason"


def test_a_repeated_slow_launch_stays_launch_overhead() -> None:
    scene = begun(1, 300 * US, launches=1)
    assert scene.host.loads_code.tolist() == [True]
    ops, calls = [], []
    for number in range(40):
        at = number * 300 * US
        calls.append({"start_ns": at, "end_ns": at + 290 * US, "name": "cudaLaunchKernel", "correlation": number + 1})
        ops.append(
            {
                "start_ns": at + 292 * US,
                "end_ns": at + 297 * US,
                "name": "kernel",
                "call": number,
                "correlation": number + 1,
            }
        )
    shown = made(ops, calls)
    (scene,) = scenes_of(shown, views(shown))
    assert scene.host.loads_code.tolist() == [True, *[False] * 39]
    (finding,) = launching(scene)
    assert finding.id == "launch-bound" and finding.gain_ns > 0.8 * scene.span
    assert finding.claim.startswith("39 of 40 kernels wait for their launch")
