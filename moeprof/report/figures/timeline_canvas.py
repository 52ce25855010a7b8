"""The timeline of a trace as markup: a figure with its data; one script and one style serve all the timelines of a page."""

from __future__ import annotations

import base64
import hashlib
import json

from markupsafe import Markup

from moeprof.report.figures.timeline_data import Timeline
from moeprof.resources import folder

NOSCRIPT = "The timeline needs JavaScript. The tables of this page carry its numbers."
NAME = (
    "Timeline of {what}: ranges and CUDA calls of the host, launches that wait, work of each device by stream, and why it is "
    "idle. The tables of this page carry the numbers. Keys: W and S zoom, A and D move, N next finding, comma and full stop "
    "walk through events, 0 shows all, question mark helps."
)


def timeline(
    data: Timeline,
    id: str = "timeline",
    what: str = "the trace",
    key: str = "t",
    link: str = "",
    zero_ns: int = 0,
    hidden: bool = False,
) -> Markup:
    """The figure of one trace.

    Args:
        data: from ``timeline_data``.
        id: of the element; unique on the page.
        what: the trace's name, for the accessible name.
        key: of the place in the URL's fragment (``#t=120.6-129.7``, in ms); unique on the page but for linked timelines.
        link: timelines of the same non-empty text zoom and move together, each relative to its own ``zero_ns``.
        zero_ns: the time that the axis counts from, in ns after the recording's beginning.
        hidden: it is drawn when a choice of timelines shows it.
    """
    return Markup(
        '<figure class="timeline" id="{id}" data-key="{key}" data-link="{link}" data-zero="{zero}" data-name="{name}"{hidden}>'
        "<noscript><p>{noscript}</p></noscript>"
        '<script type="application/json">{data}</script></figure>'
    ).format(
        id=id, key=key, link=link, zero=int(zero_ns), name=NAME.format(what=what), noscript=NOSCRIPT, data=Markup(encoded(data)), hidden=Markup(" hidden") if hidden else "",
    )  # fmt: skip


def encoded(data: Timeline) -> str:
    """The payload as JSON that is safe inside a script element: no name can end it or begin a comment."""
    text = json.dumps(data.payload, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def script() -> Markup:
    """The script of all timelines, once a page, after the last figure; without its indentation and its lines of comment."""
    lines = (line.strip() for line in _file("timeline.js").splitlines())
    return Markup("\n").join(Markup(line) for line in lines if line and not line.startswith("//"))


def style() -> Markup:
    """The style of all timelines, once a page."""
    return _file("timeline.css")


def source_hash(text: str) -> str:
    """What a Content-Security-Policy allows an inline script or style by: "'sha256-...'"."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _file(name: str) -> Markup:
    return Markup((folder("reports") / "templates" / name).read_text(encoding="utf-8"))
