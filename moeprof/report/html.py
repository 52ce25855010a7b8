"""Page -> one offline HTML file. The only user of jinja2. The same page gives the same bytes."""

from __future__ import annotations

import json
from typing import Any

import plotly
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import moeprof
from moeprof.report.page import Page
from moeprof.resources import folder


def render(page: Page) -> str:
    """The HTML of a page, with the style, the script and plotly inside."""
    templates = folder("reports") / "templates"
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = figure_json
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("page.html.j2").render(
        page=page,
        version=moeprof.__version__,
        css=_file(templates, "style.css"),
        script=_file(templates, "page.js"),
        plotlyjs=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that is safe inside a script element."""
    figure.update_layout(template=None)
    text = json.dumps(json.loads(plotly.io.to_json(figure, engine="json")), sort_keys=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _file(templates: Any, name: str) -> Markup:
    return Markup((templates / name).read_text(encoding="utf-8"))
