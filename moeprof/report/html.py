"""Page -> one offline HTML file. The only user of jinja2. The same page gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import plotly
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import moeprof
from moeprof.report import html_parts
from moeprof.report.figures import timeline_canvas
from moeprof.report.page import Drawing, Page, Section
from moeprof.resources import folder

WITH_PLOTLY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"
)


def render(page: Page) -> str:
    """The HTML of a page, with its styles and scripts inside; plotly only where a figure needs it.

    A page without plotly allows its own scripts and styles by their hashes, and nothing else.
    """
    templates = folder("reports") / "templates"
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = figure_json
    environment.filters |= html_parts.FILTERS
    environment.filters["kind"] = lambda block: type(block).__name__
    figures = [s.figure for s in _sections(page.sections) if s.figure is not None]
    drawings = [f for f in figures if isinstance(f, Drawing)]
    theme, script, styles = (
        _file(templates, "theme.js"),
        _file(templates, "page.js"),
        [_file(templates, "style.css"), _file(templates, "sections.css")],
    )
    scripts = [script, _file(templates, "sections.js")]
    if any(d.timeline for d in drawings):
        styles.append(timeline_canvas.style())
        scripts.append(timeline_canvas.script())
    if len(drawings) < len(figures):
        scripts.insert(0, Markup(get_plotlyjs().replace("</script", "<\\/script")))
        policy = WITH_PLOTLY
    else:
        hashes = [" ".join(map(timeline_canvas.source_hash, texts)) for texts in (styles, [theme, *scripts])]
        policy = "default-src 'none'; style-src {}; script-src {}; img-src data: blob:".format(*hashes)
    return environment.get_template("page.html.j2").render(
        page=page, version=moeprof.__version__, policy=Markup(policy), styles=styles, theme=theme, scripts=scripts,
    )  # fmt: skip


def _sections(sections: tuple[Section, ...]) -> Iterator[Section]:
    for part in sections:
        yield part
        yield from _sections(part.parts)


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    figure.update_layout(template=None)
    text = json.dumps(json.loads(plotly.io.to_json(figure, engine="json")), sort_keys=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _file(templates: Any, name: str) -> Markup:
    return Markup((templates / name).read_text(encoding="utf-8"))
