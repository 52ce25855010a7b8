"""Page -> one offline HTML file. The only user of jinja2. The same page gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import plotly
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import moeprof
from moeprof.report import html_parts
from moeprof.report.figures import timeline_canvas
from moeprof.report.figures.style import DARK
from moeprof.report.page import Drawing, Page, Section
from moeprof.report.plotly_js import bundle_for
from moeprof.resources import folder

POLICY = "default-src 'none'; style-src {styles}; script-src {scripts}; img-src data: blob:"
ANY_STYLE = "'unsafe-inline'"  # plotly writes style attributes


def render(page: Page) -> str:
    """The HTML of a page, with its styles and scripts inside; of plotly the smallest build that draws its figures, or none.

    A page allows its own scripts by their hashes, and nothing else; without plotly its styles too.
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
    bundle = bundle_for(f for f in figures if not isinstance(f, Drawing))
    if bundle is not None:
        scripts.insert(0, Markup(bundle.text()))
    policy = POLICY.format(
        styles=ANY_STYLE if bundle is not None else " ".join(map(timeline_canvas.source_hash, styles)),
        scripts=" ".join(map(timeline_canvas.source_hash, (theme, *scripts))),
    )
    return environment.get_template("page.html.j2").render(
        page=page, version=moeprof.__version__, policy=Markup(policy), styles=styles, theme=theme, scripts=scripts,
        dark_colours=_json(DARK) if bundle is not None else None,
    )  # fmt: skip


def _sections(sections: tuple[Section, ...]) -> Iterator[Section]:
    for part in sections:
        yield part
        yield from _sections(part.parts)


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    figure.update_layout(template=None)
    return _json(json.loads(plotly.io.to_json(figure, engine="json")))


def _json(value: Any) -> Markup:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _file(templates: Any, name: str) -> Markup:
    return Markup((templates / name).read_text(encoding="utf-8"))
