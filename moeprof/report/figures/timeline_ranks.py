"""The timeline of one window of several ranks: a group of lanes a rank, all on the joint clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from markupsafe import Markup

from moeprof.analysis.device import views
from moeprof.ranks.lanes import MOVING, WAITING, RankLane
from moeprof.ranks.model import GroupAnalysis
from moeprof.ranks.slices import JointWindow
from moeprof.report.figures.timeline_canvas import timeline
from moeprof.report.figures.timeline_classes import NUMBER
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.figures.timeline_lanes import Lane, Part
from moeprof.report.figures.timeline_owners import owned_by_class

PAD = 0.01  # of the window, beside it
CLASS_OF = {WAITING: "coll-wait", MOVING: "coll-move"}


def timeline_of_ranks(drawn: JointWindow, analysis: GroupAnalysis, id: str) -> Markup:
    """The figure; its axis counts from the first start of the window on any rank."""
    devices = views(drawn.trace)
    group_of = {view.index: group for group, view in enumerate(devices)}
    lanes = [_collectives(lane, group_of[lane.rank]) for lane in drawn.lanes if lane.rank in group_of]
    data = timeline_data(
        drawn.trace, devices, passes=(), part=Part(drawn.start_ns, drawn.end_ns), more=[lane for lane in lanes if lane]
    )  # fmt: skip
    places = {rank.place.rank: rank.place for rank in analysis.ranks}
    groups = []
    for group in data.payload["groups"]:
        place = places[group["device"]]
        where = [group["name"], "" if place.device is None else f"GPU {place.device}", place.host or ""]
        label = {"label": f"rank {place.rank}", "name": " · ".join(text for text in where if text)}
        owned = owned_by_class(devices[group_of[group["device"]]], 0, drawn.end_ns)
        groups.append(group | label | {"owned": owned, "owned_span": drawn.end_ns})
    zero, pad = -drawn.start_ns, round(PAD * drawn.end_ns)
    payload = data.payload | {"groups": groups, "home": [zero - pad, zero + drawn.end_ns + pad]}
    return timeline(replace(data, payload=payload), id, analysis.source, _key(id), zero_ns=zero)


def _key(id: str) -> str:
    """Of the place in the URL."""
    return "t" + id.removeprefix("timeline")


def _collectives(lane: RankLane, group: int) -> Lane | None:
    """When the rank's collectives wait for the last rank, and when they move data; None where neither is known."""
    parts = [(CLASS_OF[name], part) for name, part in lane.parts if name in CLASS_OF]
    if not parts:
        return None
    starts = np.concatenate([part.starts for _, part in parts])
    order = np.argsort(starts, kind="stable")
    ends = np.concatenate([part.ends for _, part in parts])
    classes = np.concatenate([np.full(len(part.starts), NUMBER[name]) for name, part in parts])
    return Lane("collectives", group, "collectives", starts[order], ends[order], classes[order], np.arange(len(starts)))
