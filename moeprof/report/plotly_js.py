"""The partial builds of plotly.js that ship with moeprof, pinned by hash; a page carries the smallest that draws its figures.

Neither of them evaluates text as code, so that the pages need no ``unsafe-eval``; WebGL traces, which do, are in neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from moeprof.resources import folder

VERSION = "4.1.1"  # of plotly.js; its figures are those of the package plotly 7
FOLDER = "vendor"


@dataclass(frozen=True)
class Bundle:
    """One build: its file in ``reports/vendor``, its npm package, the SHA-256 of the file, and the traces that it draws."""

    file: str
    package: str
    sha256: str
    traces: frozenset[str]

    @property
    def path(self) -> Path:
        """Where it is in this installation."""
        return folder("reports") / FOLDER / self.file

    def text(self) -> str:
        """The script, safe inside a script element."""
        return self.path.read_text(encoding="utf-8").replace("</script", "<\\/script")


BASIC = Bundle(
    "plotly-basic.min.js", "plotly.js-basic-dist-min",
    "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba", frozenset({"bar", "scatter", "pie"}),
)  # fmt: skip
CARTESIAN = Bundle(
    "plotly-cartesian.min.js", "plotly.js-cartesian-dist-min",
    "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a",
    BASIC.traces | {"heatmap", "histogram", "histogram2d", "box", "violin", "contour", "image"},
)  # fmt: skip
BUNDLES = (BASIC, CARTESIAN)


def bundle_for(figures: Iterable[go.Figure]) -> Bundle | None:
    """The smallest build that draws all ``figures``; None where there are none.

    Raises:
        ValueError: a figure has a trace that no build draws; this is a bug.
    """
    types = {str(trace.type) for figure in figures for trace in figure.data}
    if not types:
        return None
    bundle = next((b for b in BUNDLES if types <= b.traces), None)
    if bundle is None:
        raise ValueError(f"no shipped build of plotly.js draws {', '.join(sorted(types - CARTESIAN.traces))}")
    return bundle
