"""Read a timeline's payload back, written apart from the code that writes it; and pages of timelines for a browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from moeprof.report.figures import timeline_canvas

SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "static_shared_bytes", "dynamic_shared_bytes", "bytes")  # fmt: skip
THEME = (
    'document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";'
)
DRAWN = 'document.documentElement.dataset.drawn = "1";'
BASE = "body { margin: 0; font-family: sans-serif; } main { max-width: 1320px; margin: 0 auto; padding: 8px; }"


def numbers(text: str) -> Iterator[int]:
    """The varints of a column."""
    value = shift = 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            yield value
            value = shift = 0


def signed(value: int) -> int:
    """Zigzag, undone."""
    return -(value + 1) // 2 if value % 2 else value // 2


def bins(text: str, count: int) -> list[int]:
    """A sparse column: a 0 stands before the length of a run of zeros."""
    found: list[int] = []
    column = numbers(text)
    for value in column:
        found += [value] if value else [0] * next(column)
    return found + [0] * (count - len(found))


def lanes(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The lanes with ``events``: each a dict of start and end (ns from the trace's zero), class, and what the kind of lane has."""
    zero = int(payload["zero_ns"])
    shapes, calls, found = _shapes(payload), 0, []
    for raw in payload["lanes"]:
        column, n = numbers(raw["data"]), raw["n"]
        gaps, lengths = [signed(next(column)) for _ in range(n)], [next(column) for _ in range(n)]
        events: list[dict[str, Any]] = []
        reach = 0
        for gap, length in zip(gaps, lengths, strict=True):
            start = reach + gap
            events.append({"start": zero + start, "end": zero + start + length})
            reach = max(reach, start + length) if len(events) > 1 else start + length
        rest = list(column)
        first = rest[:n]
        if raw["kind"] == "work":
            last = 0
            for event, shape, link in zip(events, first, rest[n:], strict=True):
                last = last + signed(link - 1) if link else last
                event.update(shapes[shape], call=last if link else None)
        elif raw["kind"] == "calls":
            last = 0
            for number, (event, name, link, cls) in enumerate(
                zip(events, first, rest[n : 2 * n], rest[2 * n :], strict=True)
            ):
                last = last + signed(link - 1) if link else last
                event.update(name=payload["names"][name], correlation=last if link else -1, number=calls + number)
                event["class"] = payload["classes"][cls][0]
            calls += n
        elif raw["kind"] == "ranges":
            _name(payload, events, first, iter(rest[n:]))
        else:
            for event, cls in zip(events, first, strict=True):
                event["class"] = payload["classes"][cls][0]
        found.append(raw | {"events": events})
    return found


def _name(payload: dict[str, Any], events: list[dict[str, Any]], templates: list[int], rest: Iterator[int]) -> None:
    parts = [payload["names"][template].split("\0") for template in templates]
    values: list[list[int]] = [[] for _ in events]
    for slot in range(max((len(p) for p in parts), default=1) - 1):
        last = 0
        for i, part in enumerate(parts):
            if len(part) - 1 > slot:
                last += signed(next(rest))
                values[i].append(last)
    assert next(rest, None) is None
    for event, part, numbers_ in zip(events, parts, values, strict=True):
        event["name"] = part[0] + "".join(f"{n}{text}" for n, text in zip(numbers_, part[1:], strict=True))


def _shapes(payload: dict[str, Any]) -> list[dict[str, Any]]:
    raw = payload["shapes"]
    column = numbers(raw["data"])
    table = [[next(column) for _ in range(raw["n"])] for _ in range(3 + len(SHAPE))] if raw["n"] else []
    return [
        {"name": payload["names"][row[0]], "class": payload["classes"][row[1]][0], "memory": raw["memories"][row[-1]]}
        | {key: value - 1 for key, value in zip(SHAPE, row[2:-1], strict=True)}
        for row in zip(*table, strict=True)
    ]


def overview(payload: dict[str, Any]) -> dict[int, dict[str, list[int]]]:
    """For each device and class the ns of each bin."""
    count = payload["overview"]["bins"]
    return {
        device["device"]: {payload["classes"][number][0]: bins(data, count) for number, _, data in device["classes"]}
        for device in payload["overview"]["devices"]
    }


def payload_of(markup: str) -> dict[str, Any]:
    """The data inside a figure's markup."""
    found: dict[str, Any] = json.loads(
        markup.partition('<script type="application/json">')[2].partition("</script>")[0]
    )
    return found


def page(*figures: str) -> str:
    """A page of timelines under the strictest policy that lets them run."""
    style, script = str(timeline_canvas.style()), str(timeline_canvas.script())
    allowed = " ".join(timeline_canvas.source_hash(text) for text in (THEME, script, DRAWN))
    styles = " ".join(timeline_canvas.source_hash(text) for text in (style, BASE))
    policy = f"default-src 'none'; style-src {styles}; script-src {allowed}; img-src data:"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>Timelines</title><style>{style}</style>'
        f"<style>{BASE}</style><script>{THEME}</script></head><body><main><h1>Timelines</h1>{''.join(figures)}</main>"
        f"<script>{script}</script><script>{DRAWN}</script></body></html>"
    )
