"""The scripts of plotly: pinned, of a stated version, only as much as a page needs, and no page evaluates text as code."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs_version

from moeprof import resources
from moeprof.loaded import capture
from moeprof.report import build, html
from moeprof.report.page import Drawing, Page, Section, section
from moeprof.report.plotly_js import BASIC, BUNDLES, CARTESIAN, VERSION, Bundle, bundle_for

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda b: b.file)
def test_the_shipped_file_is_the_pinned_one(bundle: Bundle) -> None:
    script = bundle.path.read_bytes()
    assert hashlib.sha256(script).hexdigest() == bundle.sha256, "scripts/fetch_plotly.py fetches it again"
    assert f"v{VERSION}".encode() in script[:200] and b"MIT" in script[:400]
    for code in (b"new Function", b"eval("):
        assert code not in script, "the pages' policy forbids it"
    readme = (bundle.path.parent / "README.md").read_text(encoding="utf-8")
    assert VERSION in readme and bundle.file in readme and bundle.package in readme
    assert "MIT License" in (bundle.path.parent / "LICENSE-plotly").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_figures() -> None:
    assert VERSION.split(".")[0] == get_plotlyjs_version().split(".")[0]


def test_a_page_has_the_smallest_build_that_draws_it() -> None:
    bar, heat, pie = go.Figure(go.Bar(y=[1])), go.Figure(go.Heatmap(z=[[1]])), go.Figure(go.Pie(values=[1]))
    assert bundle_for([]) is None and bundle_for([bar, pie]) is BASIC and bundle_for([bar, heat]) is CARTESIAN
    with pytest.raises(ValueError, match="scattergl"):
        bundle_for([go.Figure(go.Scattergl(y=[1]))])


def page_of(*figures: go.Figure | Drawing) -> str:
    return html.render(Page("t", "", tuple(section(f"s{n}", "s", "", f, ()) for n, f in enumerate(figures))))


def test_no_plotly_without_a_figure_and_no_page_may_evaluate_text(tmp_path: Path) -> None:
    plain = html.render(Page("t", "", (Section("s", "s"),)))
    assert "plotly.js (" not in plain and 'id="dark-colours"' not in plain and len(plain) < 40_000
    drawn = page_of(go.Figure(go.Bar(y=[1])))
    sample = html.render(build.page_of((capture.load(SAMPLE),)))
    for page in (plain, drawn, sample):
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
        assert policy is not None and "unsafe-eval" not in policy[1]
        allowed = re.search(r"script-src ([^;]+);", policy[1])
        assert allowed is not None and "unsafe-inline" not in allowed[1]
        scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
        assert hashes and sorted(hashes) == sorted(allowed[1].split()), "each script is allowed by its hash"
    assert "plotly.js (basic" in drawn and "plotly.js (cartesian" in page_of(go.Figure(go.Heatmap(z=[[1]])))
