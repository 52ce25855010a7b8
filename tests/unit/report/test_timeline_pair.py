"""Timelines one above the other: an iteration is that of the ledger, and each begins at its own start."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import timelines
from builders.trace_tables import trace

from moeprof import resources
from moeprof.analysis.device import main_device
from moeprof.loaded import capture
from moeprof.loaded.capture import CapturedVariant
from moeprof.report.figures.timeline_classes import CLASSES, IDLE
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.figures.timeline_lanes import Part
from moeprof.report.figures.timeline_pair import Side, iterations, side_by_side

SAMPLES = sorted(p.name for p in (resources.folder("reports") / "samples").iterdir() if p.is_dir())
OWNER = {
    "attention": "compute",
    "gemm": "compute",
    "copy-like": "compute",
    "elementwise": "compute",
    "graph": "compute",
} | dict.fromkeys(("h2d", "d2h", "d2d", "p2p", "copy"), "exposed_copy")
OWNER |= {"comm": "exposed_comm", "migration": "exposed_migration", "memset": "exposed_memset"}


def sides(name: str) -> list[tuple[CapturedVariant, Side]]:
    shown = capture.load(resources.folder("reports") / "samples" / name)
    return [(v, side) for side in iterations(shown) if (v := shown.variant(side.name)) is not None]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_iteration_is_that_of_the_ledger(name: str) -> None:
    for variant, side in sides(name):
        window = variant.representative
        assert window is not None and side.span_ns == window.span_ns
        payload = side.data.payload
        assert int(payload["zero_ns"]) + side.zero_ns == window.start_ns
        owned: dict[str, int] = {}
        for number, spent in payload["groups"][0]["owned"]:
            kind = list(CLASSES)[number]
            owner = kind if kind in IDLE else OWNER.get(kind, kind)
            owned[owner] = owned.get(owner, 0) + spent
        expected = {k.removesuffix("_ns"): v for k, v in (vars(window.ledger) | vars(window.idle)).items() if v}
        expected.pop("idle", None)
        assert owned == expected
        idle = next(lane for lane in timelines.lanes(payload) if lane["kind"] == "idle")
        causes: dict[str, int] = {}
        for event in idle["events"]:
            low, high = max(event["start"], window.start_ns), min(event["end"], window.end_ns)
            if high > low:
                causes[event["class"]] = causes.get(event["class"], 0) + high - low
        assert causes == {k.removesuffix("_ns"): v for k, v in vars(window.idle).items() if v}


@pytest.mark.parametrize("name", ["kv_transfer", "expert_parallel"])
def test_every_operation_of_the_iteration_is_drawn_with_its_launch(name: str) -> None:
    for variant, side in sides(name):
        window, view = variant.representative, main_device(variant.views)
        assert window is not None and view is not None
        rows = view.overlapping(window.start_ns, window.end_ns)
        lanes = timelines.lanes(side.data.payload)
        drawn = [e for lane in lanes if lane["kind"] == "work" for e in lane["events"] if e["end"] > window.start_ns]
        assert sorted((e["start"], e["end"]) for e in drawn) == sorted(
            zip(view.starts[rows].tolist(), view.ends[rows].tolist(), strict=True)
        )
        known = int((view.call[rows] >= 0).sum())
        assert known > 0 and sum(e["call"] is not None for e in drawn) == known, (
            "a launch before the iteration is there"
        )


def test_at_a_cut_the_causes_of_idle_time_begin_anew() -> None:
    made = trace(
        [{"start_ns": a, "end_ns": a + 10_000, "call": n} for n, a in enumerate((0, 50_000))],
        [{"start_ns": 45_000 * n, "end_ns": 45_000 * n + 2_000} for n in (0, 1)],
    )
    shown = timeline_data(made, part=Part(0, 60_000, (30_000,))).payload
    idle = next(lane for lane in timelines.lanes(shown) if lane["kind"] == "idle")
    assert [(e["start"], e["end"], e["class"]) for e in idle["events"]] == [
        (10_000, 30_000, "edge"), (30_000, 50_000, "edge"),
    ]  # fmt: skip
    whole = timelines.lanes(timeline_data(made, part=Part(0, 60_000)).payload)
    causes = [e["class"] for lane in whole if lane["kind"] == "idle" for e in lane["events"]]
    assert causes == ["host", "launch", "dependency"]


def test_the_lower_place_has_a_choice_where_there_are_more_than_two() -> None:
    three = [side for _, side in sides("kv_transfer")]
    markup = str(side_by_side(three, "baseline", "graph", "timeline", "x"))
    assert re.findall(r'id="(timeline-\d)"[^>]*?( hidden)?>', markup) == [
        ("timeline-0", ""), ("timeline-1", " hidden"), ("timeline-2", ""),
    ]  # fmt: skip
    assert markup.count("<option") == 2 and 'value="timeline-2" selected' in markup
    pair = str(side_by_side(three[:2], "baseline", "overlap", "timeline", "x"))
    assert "<select" not in pair and pair.count("<figure") == 2
    alone = str(side_by_side(three[:1], None, None, "timeline", "x"))
    assert alone.count("<figure") == 1
    homes = [home(markup, n) for n in (0, 2)]
    assert homes[0] == homes[1], "the same part of time, from each one's own start"


def home(markup: str, number: int) -> list[Any]:
    figure = markup[markup.index(f'id="timeline-{number}"') :]
    zero = re.search(r'data-zero="(\d+)"', figure)
    assert zero is not None
    return [round((t - int(zero[1])) / 1e3) for t in timelines.payload_of(figure)["home"]]


def test_a_hostile_name_stays_text() -> None:
    evil = '"><script>alert(1)</script>'
    named = [replace(side, name=f"{evil}{n}", detail=evil) for n, (_, side) in enumerate(sides("kv_transfer"))]
    markup = str(side_by_side(named, None, None, "timeline", "x"))
    assert "<script>alert" not in markup and markup.count("<script") == 3
