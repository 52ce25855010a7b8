"""A trace as the compact data of the timeline: lanes of events, the overview, flags of findings, passes.

All times are whole nanoseconds from ``zero_ns``. Columns of numbers are LEB128 varints in base64; a column that can fall
is a zigzag of its differences. The columns of each kind of lane, one after the other:

    ranges  gap, length, template of the name, then the numbers in the name (differences to the same slot before)
    calls   gap, length, name, correlation (difference; 0 stands for none)
    work    gap, length, shape, launch call (0 for none, else 1 + zigzag of the difference to the call before)
    idle    gap, length, cause

``gap`` is the zigzag of start minus the latest end before it in the lane. The same trace gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.intervals import Times, union
from moeprof.analysis.model import Finding
from moeprof.report.figures.timeline_classes import CLASSES, NUMBER, call_classes
from moeprof.report.figures.timeline_codec import Names, bin_edges, row_numbers, sparse, text, varints, zigzag
from moeprof.report.figures.timeline_detail import MOST_BINS, Detail, detail_of, home_of, note_of
from moeprof.report.figures.timeline_lanes import Lane, Part, Recording, extent, lanes_of
from moeprof.report.figures.timeline_owners import owners, waiting
from moeprof.report.figures.timeline_places import Flag, Pass, flags_of, median_pass, passes_of
from moeprof.report.kernel_names import labels
from moeprof.trace import Trace

VERSION = 1
BUDGET = 150_000  # events: about 1.4 MB of base64, decoded in about 0.1 s
LONGEST_NAME = 300  # characters of a full kernel name
SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "static_shared_bytes", "dynamic_shared_bytes", "bytes")  # fmt: skip
DIGITS = re.compile(r"(?<![\w.])(?:0|[1-9]\d{0,14})(?![\w.])")  # numbers in a range's name that come back as they were
SLOT = "\x00"
NO_SHAPES = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Timeline:
    """Everything that the figure of one trace needs.

    Args:
        payload: what ``timeline.js`` reads, as JSON-able data.
        note: what was reduced or left out, in one line; "" where nothing was.
        events: how many events the payload holds in full.
        flags: the places of the findings, in their order.
        typical_ns: when the pass of median length begins, in ns after the recording's beginning; 0 where there are no passes.
    """

    payload: dict[str, Any]
    note: str
    events: int
    flags: tuple[Flag, ...]
    typical_ns: int = 0


def timeline_data(
    trace: Trace,
    prepared: Sequence[DeviceView] | None = None,
    findings: Iterable[Finding] = (),
    passes: Sequence[Pass] | None = None,
    budget: int = BUDGET,
    part: Part | None = None,
    more: Sequence[Lane] = (),
) -> Timeline:
    """The data of a trace's timeline.

    Args:
        prepared: the views of the trace, where the caller has them.
        findings: their places become flags; a finding without a place has none.
        passes: the repeated part; found from the trace where it is None.
        budget: events that are kept in full; above it the rest becomes busy fractions.
        part: of the recording, where not all of it is shown.
        more: lanes that the trace does not contain, each for the group (device) that it names.
    """
    devices = tuple(views(trace) if prepared is None else prepared)
    shown = Part(*extent(trace)) if part is None else part
    recording = Recording(trace, devices, shown.start_ns, shown.end_ns, shown.cuts)
    start = recording.start
    flags = flags_of(findings, start, recording.end)
    repeated = passes_of(trace, devices) if passes is None else tuple(passes)
    lanes, hidden = lanes_of(recording)
    lanes += more
    detail = detail_of(recording, lanes, flags, repeated, budget)
    note = note_of(recording, lanes, detail, hidden)
    payload = _Encoder(recording, lanes, detail).payload() | {
        "passes": [[p.start_ns - start, p.end_ns - start, p.label] for p in repeated],
        "flags": [f.encoded(start) for f in flags],
        "home": home_of(recording, repeated, flags),
        "note": note,
    }
    typical = max(median_pass(repeated).start_ns - start, 0) if repeated else 0
    return Timeline(payload, note, detail.events, flags, typical)


class _Encoder:
    """Writes lanes into the payload."""

    def __init__(self, recording: Recording, lanes: list[Lane], detail: Detail) -> None:
        self.trace, self.devices, self.lanes, self.kept = recording.trace, recording.devices, lanes, detail.kept
        self.start, self.end, self.span = recording.start, recording.end, recording.span
        self.windows, self.reduced = detail.windows, detail.windows is not None
        self.names = Names()
        self.full: dict[str, str] = {}
        self.labels = labels(map(str, recording.trace.ops["name"].unique()))

    def payload(self) -> dict[str, Any]:
        self._number_calls()
        shapes, of_lane = self._shapes()
        lanes = [self._lane(i, lane, of_lane.get(i, NO_SHAPES)) for i, lane in enumerate(self.lanes)]
        bins = max(min(MOST_BINS // max(len(self.devices), 1), MOST_BINS // 2, self.span), 1)
        return {
            "version": VERSION,
            "zero_ns": str(self.start),
            "span_ns": self.span,
            "classes": [[name, label] for name, label in CLASSES.items()],
            "names": self.names.texts,
            "full": self.full,
            "shapes": shapes,
            "groups": [self._group(view) for view in self.devices] or [{"device": -1, "label": "host"}],
            "lanes": lanes,
            "detail": None if self.windows is None else [[a - self.start, b - self.start] for a, b in self.windows],
            "overview": {"bins": bins, "devices": [self._overview(view, bins) for view in self.devices]},
        }

    def _group(self, view: DeviceView) -> dict[str, Any]:
        name = next((d.name for d in self.trace.devices if d.index == view.index and d.name), None)
        label = "CPU" if view.index < 0 or name == "CPU" else f"GPU {view.index}"
        group = {"device": view.index, "label": label, "name": name or ""}
        if self.reduced:
            group["queue"] = text(sparse(self._queue(view)))
        return group

    def _queue(self, view: DeviceView) -> np.ndarray:
        """Launches that wait, on average over each bin, in tenths."""
        edges = bin_edges(self.span, _lane_bins(len(self.lanes), self.span)) + self.start
        called, begun = waiting(view)
        total = np.zeros(len(edges) - 1)
        for times, sign in ((called, 1.0), (begun, -1.0)):
            ordered = np.sort(times)
            index = np.searchsorted(ordered, edges)
            before = np.concatenate([[0], np.cumsum(ordered - self.start)])[index]
            total += sign * np.diff(index * (edges - self.start) - before)
        return np.round(10 * total / np.maximum(np.diff(edges), 1)).astype(np.int64)

    def _number_calls(self) -> None:
        """Kept calls get numbers in the order of their lanes."""
        self.call_number = np.full(len(self.trace.calls), -1, dtype=np.int64)
        count = 0
        for lane, mask in zip(self.lanes, self.kept, strict=True):
            if lane.kind == "calls":
                rows = lane.rows[mask]
                self.call_number[rows] = np.arange(count, count + len(rows))
                count += len(rows)

    def _shapes(self) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
        """Different operations (name, class, launch shape, bytes, memories), the most frequent first; and each kept event's."""
        parts = [
            (i, lane, lane.rows[mask])
            for i, (lane, mask) in enumerate(zip(self.lanes, self.kept, strict=True))
            if lane.kind == "work"
        ]
        frames = []
        for i, lane, rows in parts:
            ops = self.devices[lane.group].ops.iloc[rows]
            frame = ops[["name", *SHAPE, "src_memory", "dst_memory"]].astype(
                {"name": object, "src_memory": object, "dst_memory": object}
            )
            frames.append(frame.assign(cls=lane.classes[self.kept[i]]))
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        if not len(table):
            return {"n": 0, "data": "", "memories": []}, {i: np.empty(0, np.int64) for i, _, _ in parts}
        code = row_numbers(table)
        order = np.argsort(-np.bincount(code), kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        first = np.unique(code, return_index=True)[1][order]
        unique = table.iloc[first]
        memories = Names()
        names = [self._operation_name(str(name)) for name in unique["name"]]
        both = [
            memories(f"{a} to {b}" if a and b else a or b)
            for a, b in zip(unique["src_memory"], unique["dst_memory"], strict=True)
        ]
        columns = [names, unique["cls"], *(unique[c] + 1 for c in SHAPE), both]
        data = b"".join(varints(np.maximum(np.asarray(c, dtype=np.int64), 0)) for c in columns)
        code = rank[code]
        ends = np.cumsum([len(rows) for _, _, rows in parts])
        of_lane = {i: code[end - len(rows) : end] for (i, _, rows), end in zip(parts, ends, strict=True)}
        return {"n": len(unique), "data": text(data), "memories": memories.texts}, of_lane

    def _operation_name(self, name: str) -> int:
        short = self.labels[name]
        number = self.names(short)
        if short != name:
            self.full.setdefault(str(number), name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…")
        return number

    def _lane(self, number: int, lane: Lane, shapes: np.ndarray) -> dict[str, Any]:
        mask = self.kept[number]
        starts, ends, rows = lane.starts[mask] - self.start, lane.ends[mask] - self.start, lane.rows[mask]
        reach = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
        columns = [varints(zigzag(starts - reach)), varints(np.maximum(ends - starts, 0))]
        if lane.kind == "work":
            columns += [varints(shapes), self._links(self.devices[lane.group].call[rows])]
        elif lane.kind == "calls":
            columns += self._calls(rows)
        elif lane.kind == "ranges":
            columns += self._ranges(rows)
        else:
            columns.append(varints(lane.classes[mask]))
        encoded: dict[str, Any] = {
            "kind": lane.kind, "group": lane.group, "label": lane.label, "n": int(mask.sum()), "data": text(b"".join(columns)),
        }  # fmt: skip
        if lane.thread >= 0:
            encoded["thread"] = lane.thread
        if lane.minor:
            encoded["minor"] = 1
        if self.reduced and lane.kind != "ranges":
            encoded["bins"] = self._bins(lane)
        return encoded

    def _links(self, calls: Times) -> bytes:
        number = np.where(calls >= 0, self.call_number[calls], -1) if len(self.call_number) else np.full(len(calls), -1)
        known = number >= 0
        before = np.concatenate([[0], number[known][:-1]])
        link = np.zeros(len(number), dtype=np.uint64)
        link[known] = zigzag(number[known] - before)[: known.sum()] + np.uint64(1)
        return varints(link)

    def _calls(self, rows: Times) -> list[bytes]:
        names = self.trace.calls["name"].cat
        places = np.array([-1] * (len(names.categories) + 1))
        codes = names.codes.to_numpy()[rows]
        for code in pd.unique(codes):
            places[code] = self.names(str(names.categories[code]) if code >= 0 else "")
        correlation = self.trace.calls["correlation"].to_numpy()[rows]
        known = correlation >= 0
        link = np.zeros(len(rows), dtype=np.uint64)
        step = np.diff(correlation[known], prepend=0)
        link[known] = zigzag(step) + np.uint64(1)
        classes = call_classes(self.trace.calls)[rows]
        return [varints(places[codes]), varints(link), varints(classes)]

    def _ranges(self, rows: Times) -> list[bytes]:
        """The template of each name, then slot by slot the numbers in it."""
        column = self.trace.ranges["name"].cat
        codes, distinct = pd.factorize(column.codes.to_numpy()[rows])
        templates, counts, numbers = [], [], []
        for code in distinct:
            name = str(column.categories[code]).replace(SLOT, "\ufffd") if code >= 0 else ""
            digits = [int(m) for m in DIGITS.findall(name)]
            templates.append(self.names(DIGITS.sub(SLOT, name) if digits else name))
            counts.append(len(digits))
            numbers.append(digits)
        columns = [varints(np.array(templates, dtype=np.int64)[codes])]
        count = np.array(counts, dtype=np.int64)[codes] if len(codes) else codes
        for slot in range(int(count.max()) if len(count) else 0):
            values = np.array([digits[slot] if len(digits) > slot else 0 for digits in numbers], dtype=np.int64)
            columns.append(varints(zigzag(np.diff(values[codes[count > slot]], prepend=0))))
        return columns

    def _bins(self, lane: Lane) -> dict[str, Any]:
        """The busy time of each class in each bin of the whole recording."""
        count = _lane_bins(len(self.lanes), self.span)
        edges = bin_edges(self.span, count) + self.start
        classes = {}
        for number in np.unique(lane.classes):
            mask = lane.classes == number
            covered = np.diff(union(lane.starts[mask], lane.ends[mask]).covered_before(edges))
            classes[str(int(number))] = text(sparse(covered))
        return {"count": count, "classes": classes}

    def _overview(self, view: DeviceView, bins: int) -> dict[str, Any]:
        edges = bin_edges(self.span, bins) + self.start
        classes = []
        for name, owned in owners(view, self.start, self.end).items():
            total = owned.clip(self.start, self.end).total_ns
            if total:
                classes.append([NUMBER[name], total, text(sparse(np.diff(owned.covered_before(edges))))])
        return {"device": view.index, "classes": classes}


def _lane_bins(lanes: int, span: int) -> int:
    return int(max(min(MOST_BINS, 24_000 // max(lanes, 1), span), 1))
