"""Histories: the test for change points against brute force and simulation, breaks, the table, JSON and page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.chromium import CHROMIUM, Browser
from builders.sample_captures import Ran, another_gpu, around, made, timed, variant
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moeprof.errors import CaptureError, UsageError
from moeprof.gate.history import history
from moeprof.report import history as shown
from moeprof.report import html, text
from moeprof.stats import change_points as changepoints
from moeprof.stats.change_points import LEAST_SEGMENT, change_points, divergence

Run = Callable[..., Ran]


# ---- change points


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=14))
@settings(max_examples=60)
def test_the_statistic_is_its_definition(values: list[float]) -> None:
    found = divergence(np.array([values]))[0]
    assert len(found) == max(0, len(values) - 2 * LEAST_SEGMENT + 1)
    for place, m in enumerate(range(LEAST_SEGMENT, len(values) - LEAST_SEGMENT + 1)):
        x, y = np.array(values[:m]), np.array(values[m:])
        n = len(y)
        within = [sum(abs(a - b) for i, a in enumerate(s) for b in s[:i]) * 2 / (len(s) * (len(s) - 1)) for s in (x, y)]
        energy = 2 * np.abs(x[:, None] - y).mean() - within[0] - within[1]
        assert found[place] == pytest.approx(m * n / (m + n) * energy, abs=1e-9)


@pytest.mark.parametrize("jitter", ["normal", "heavy"])
def test_a_series_that_only_jitters_is_seldom_split(jitter: str) -> None:
    """240 series without a change at 5 %: 12 are expected, more than 22 would come once in 250 times. Heavy tails change nothing."""
    rng = np.random.default_rng(11)
    draw = rng.standard_normal if jitter == "normal" else lambda n: rng.standard_t(2, n)
    false = [len(change_points(20 * np.exp(0.02 * draw(int(n))))) > 0 for n in rng.integers(8, 25, 240)]
    assert 1 <= sum(false) <= 22


@pytest.mark.parametrize(("length", "at"), [(12, 6), (20, 5), (30, 24)])
def test_a_step_of_5_percent_is_found_where_it_is(length: int, at: int) -> None:
    """1 % jitter from capture to capture; 30 histories each."""
    rng = np.random.default_rng(5)
    right = 0
    for _ in range(30):
        values = 20 * np.exp(0.01 * rng.standard_normal(length))
        values[at:] *= 1.05
        right += at in [p.index for p in change_points(values)]
    assert right >= 27


def test_two_steps_are_two_changes_with_their_levels() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat([20.0, 22.0, 18.0], 10) * np.exp(0.004 * rng.standard_normal(30))
    found = change_points(values)
    assert [p.index for p in found] == [10, 20] and all(0.001 <= p.p <= 0.05 for p in found)
    assert [(round(p.before), round(p.after)) for p in found] == [(20, 22), (22, 18)]
    assert change_points(values) == found  # the same history, the same changes


def test_what_is_no_change() -> None:
    outlier = [20.0] * 10 + [30.0] + [20.0] * 10
    assert change_points([20.0] * 30) == () and change_points(outlier) == ()
    assert change_points([20.0] * 4 + [21.0] * 3) == ()  # seven values can prove nothing
    assert change_points([20.0] * 4 + [21.0] * 4) != ()
    assert [p.index for p in change_points([20.0] * 18 + [21.0] * 2)] == [18]  # two on a side are enough
    assert change_points([20.0] * 10 + [20.1] * 10) == ()  # significant, and half a percent


@given(st.lists(st.sampled_from([19.0, 20.0, 21.0]), min_size=8, max_size=16), st.floats(0.01, 100))
@example([20.0, 20.0, 20.0, 19.0, 20.0] + [19.0] * 7, 3.0)  # two equally good splits, which rounding orders
@settings(max_examples=25, deadline=None)
def test_the_unit_does_not_matter(values: list[float], factor: float) -> None:
    one, other = change_points(values), change_points([v * factor for v in values])
    assert [p.index for p in one] == [p.index for p in other]


def test_a_long_series_is_tested_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [20.0, 20.1] * 6 + [21.0, 21.1] * 6
    whole = change_points(values)
    monkeypatch.setattr(changepoints, "AT_ONCE", 2000)
    assert [p.index for p in change_points(values)] == [p.index for p in whole] == [12]


# ---- histories of captures


def captured(folder: Path, count: int, **at: Any) -> list[Path]:
    """Captures one a day, 0.5 % apart; ``step``: 5 % slower from that one on; ``gpu``: another GPU from that one on; ``lost``: failed."""
    rng = np.random.default_rng(3)
    found = []
    for day in range(count):
        mean = 20e6 * (1.05 if day >= at.get("step", count) else 1.0) * np.exp(0.005 * rng.standard_normal())
        changes = [
            timed("graph", around(mean, 0.002, seed=day)),
            lambda m, d=day: replace(m, created=f"2026-03-{d + 1:02d}T00:00:00", git=f"g{d}"),
        ]
        changes += [another_gpu] if day >= at.get("gpu", count) else []
        lost = variant("graph", lambda v: replace(v, status="failed", reason="it crashed"))
        changes += [lost] if day == at.get("lost") else []
        found.append(made(folder / f"day-{day:02d}", *changes, light=True))
    return found


def test_a_step_is_marked_with_its_capture_and_a_failed_one_is_shown(command: Run, tmp_path: Path) -> None:
    paths = captured(tmp_path / "h", 14, step=6, lost=3)
    ran = command("history", *paths[::-1])  # in any order
    lines = ran.out.splitlines()
    assert ran.code == 0 and "1 change in 14 captures, at 7 (day-06)" in lines[0]
    found = json.loads(command("history", *paths, "--json").out)
    assert found["schema_version"] == 1 and [e["git"] for e in found["entries"]] == [f"g{d}" for d in range(14)]
    assert [i for i, e in enumerate(found["entries"]) if e["change"]] == [6]
    assert not any(e["verdict"] for e in found["entries"]), "the test stands, not the verdict of each on the one before"
    change = found["entries"][6]["change"]
    assert 1.04 < change["after"] / change["before"] < 1.06 and change["p"] <= 0.05
    assert found["entries"][3]["value"] is None and "it crashed" in found["entries"][3]["missing"]
    assert "g6" in ran.out and "it crashed" in ran.words and "+5." in ran.words


def test_a_step_with_another_gpu_is_a_break_and_no_change(tmp_path: Path) -> None:
    found = history(captured(tmp_path / "h", 20, step=10, gpu=10), None, "step_time")
    assert [i for i, e in enumerate(found.entries) if e.breaks] == [10]
    assert not any(e.change for e in found.entries) and found.entries[10].breaks[0].evidence["what"] == "GPU"
    assert "UNLIKE: GPU" in text.render(shown.page(found)) and "no change found" in shown.title(found)


def test_a_short_history_says_that_it_is_too_short_and_gives_verdicts(tmp_path: Path) -> None:
    found = history(captured(tmp_path / "h", 4, step=2), None, "step_time")
    assert not any(e.change for e in found.entries) and found.entries[2].verdict == "SLOWER"
    assert len(found.notes) == 1 and "too few" in found.notes[0] and "too few" in text.render(shown.page(found))


def test_a_count_that_changes_is_a_change_at_once(tmp_path: Path) -> None:
    def eager(found: Any) -> Any:
        parts = found.variant("baseline").parts
        return variant("graph", lambda v: replace(v, parts=parts))(found)

    paths = [made(tmp_path / "a"), made(tmp_path / "b", eager, lambda m: replace(m, created="2026-12-01"))]
    found = history(paths, None, "launches")
    assert [e.change and (e.change.before, e.change.after, e.change.p) for e in found.entries] == [
        None,
        (1.0, 96.0, None),
    ]
    assert found.notes == () and "exact" in text.render(shown.page(found))


def test_the_baselines_of_a_folder_are_a_history(command: Run, tmp_path: Path) -> None:
    for day, path in enumerate(captured(tmp_path / "h", 3)):
        command("baseline", "save", f"v{day}", path, "-b", "kept")
    ran = command("history", "--baselines", "kept", "--variant", "overlap", "--json")
    found = json.loads(ran.out)
    assert [e["capture"] for e in found["entries"]] == ["v0", "v1", "v2"] and found["variant"] == "overlap"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [((), 1, "no capture to show"), (("gone",), 1, "not a capture"), (("one", "--metric", "speed"), 2, "no metric"), (("one", "--variant", "x"), 2, "no capture has"),
     (("one", "-o", "one/manifest.json"), 2, "exists")],
)  # fmt: skip
def test_what_cannot_be(command: Run, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    made(tmp_path / "one", light=True)
    ran = command("history", *words)
    assert ran.code == code and said in ran.err and "Traceback" not in ran.err


def test_errors_are_of_their_kind(tmp_path: Path) -> None:
    with pytest.raises(CaptureError):
        history([], None, "step_time")
    with pytest.raises(UsageError):
        history([made(tmp_path / "one", light=True)], None, "nothing")


def test_the_page_shows_what_the_history_holds_and_escapes_it(command: Run, tmp_path: Path) -> None:
    paths = captured(tmp_path / "h", 12, step=6)
    made(
        tmp_path / "h" / "z<script>",
        lambda m: replace(m, created="2026-03-30", git="<b>g</b>"),
        another_gpu,
        light=True,
    )
    ran = command("history", *paths, tmp_path / "h" / "z<script>", "-o", "out/h.html")
    assert ran.code == 0 and "Wrote out/h.html" in ran.out
    page = (tmp_path / "out" / "h.html").read_text()
    assert (
        "z<script>" not in page
        and "&lt;b&gt;g&lt;/b&gt;" in page
        and "&lt;script&gt;" in page
        and "Where the captures are unlike" in page
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with Browser() as browser:
        browser.open(tmp_path / "out" / "h.html", width=390)
        texts = browser.evaluate(
            "[...document.querySelectorAll('#figure-history .annotation-text')].map(t => t.textContent)"
        )
        assert len(texts) == 2 and texts[0].startswith("+5.") and texts[1] == "other GPU"
        assert browser.evaluate("document.querySelectorAll('#figure-history .errorbars path.yerror').length") == 13
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.requests() == [] and browser.complaints() == []


def test_the_figure_marks_changes_before_their_captures_and_cuts_the_levels_there(tmp_path: Path) -> None:
    found = history(captured(tmp_path / "h", 22, step=8, gpu=16), None, "step_time")
    figure = shown.figure(found)
    assert figure is not None
    assert [(s.x0, s.line.dash) for s in figure.layout.shapes] == [(8.5, None), (16.5, "dot")]
    levels = [trace for trace in figure.data if trace.mode == "lines"]
    assert [tuple(trace.x) for trace in levels] == [(0.6, 8.4), (8.6, 16.4), (16.6, 22.4)]
    assert [round(trace.y[0]) for trace in levels] == [20, 21, 21]


def test_a_history_without_a_value_has_no_figure(tmp_path: Path) -> None:
    found = history([made(tmp_path / "one", light=True)], None, "idle")
    assert shown.figure(found) is None and "figure-history" not in html.render(shown.page(found))
    assert "no trace" in " ".join(text.render(shown.page(found)).split())
