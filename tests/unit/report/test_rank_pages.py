"""The page and the terminal's text of ranks: of two, and of a thousand and twenty-four."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timelines
from browser.chromium import Browser
from builders import rank_traces
from builders.rank_traces import Planted, facts_of, grow, shifted, write_folder
from builders.sample_captures import Ran
from fakes.command_line import moeprof

from moeprof.ranks import groups
from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.heat import heat
from moeprof.ranks.lanes import WAITING, lanes, windows
from moeprof.ranks.model import GroupAnalysis
from moeprof.ranks.slices import RankTrace, joint
from moeprof.report import html, rank_tables, ranks, text
from moeprof.report.figures import ranks as figures
from moeprof.trace.classify import COMMUNICATION

Run = Callable[..., Ran]
T = "document.querySelector('#lanes figure.timeline').timeline"
MANY, LATE, STRETCHED = 1024, 700, 341
MADE = 128  # ranks that have a trace of their own
MOST_BYTES = 4 << 20


@pytest.fixture(scope="module")
def many(traces: Path) -> GroupAnalysis:
    """1,024 ranks, each with a clock of its own, two of them stragglers; of the others every 126 begin anew."""
    assert traces
    clocks = np.random.default_rng(0).integers(-(10**9), 10**9, MANY)
    planted = Planted((0,) * MADE, jitter=0.005, late={0: ("compute", 200_000)}, stretched={1: 1.1})
    made = facts_of(grow(rank_traces.real(4, 2), planted)[0], one_clock=False)
    source = {LATE: 0, STRETCHED: 1}
    ranks = range(MANY)
    return analyse_ranks("made", [shifted(made[source.get(r, 2 + r % (MADE - 2))], r, int(clocks[r])) for r in ranks])


def test_shifted_facts_are_those_of_a_trace_with_that_clock(traces: Path) -> None:
    assert traces
    without, with_clocks = (
        facts_of(grow(rank_traces.real(4, 2), Planted(clocks, jitter=0.005))[0], one_clock=False)
        for clocks in ((0, 0), (-7_000, 123_456_789))
    )
    moved = [
        shifted(facts, rank, by) for rank, (facts, by) in enumerate(zip(without, (-7_000, 123_456_789), strict=True))
    ]
    assert [repr(facts) for facts in moved] == [repr(facts) for facts in with_clocks] and repr(moved) != repr(without)
    assert analyse_ranks("made", moved) == analyse_ranks("made", with_clocks)


def test_the_stragglers_among_a_thousand_are_named(many: GroupAnalysis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert [s.rank for s in many.stragglers] == [STRETCHED, LATE] and len(many.ranks) == MANY
    assert {c.rank for c in many.critical} == {STRETCHED}
    shown = text.render(ranks.page(((many, None),)))
    assert len(shown.splitlines()) < 60 and "Rank 341 is a straggler" in shown and "12 of 1024" in shown
    assert "exposed: median" in shown and "exposed: most" in shown, "a column of zeros takes no other along"


def test_a_heat_map_of_a_thousand_is_bounded_and_keeps_the_latest_rank_apart(many: GroupAnalysis) -> None:
    shares = heat(many, "waiting", figures.BOUNDS)
    labels, cells = figures.labels_of(shares), shares.shares
    assert len(labels) == len(set(labels)) == figures.BOUNDS.rows
    assert cells.shape == (figures.BOUNDS.rows, len(many.ranks[0].windows))
    assert labels[:2] == [f"rank {STRETCHED}", f"rank {LATE}"]
    assert 20 * cells[0].max() < cells[2:].min(), "nobody waits less than the one that all wait for"
    held = sum(1 if "ranks" not in label else int(label.split()[3]) - int(label.split()[1]) + 1 for label in labels)
    assert held >= MANY, "every rank is in some row"


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_thousand_ranks_in_a_browser(
    browser: Browser, many: GroupAnalysis, tmp_path: Path, dark: bool
) -> None:
    page, body = tmp_path / "many.html", html.render(ranks.page(((many, None),)))
    assert len(body) < MOST_BYTES and body == html.render(ranks.page(((many, None),)))
    page.write_text(body, encoding="utf-8")
    looked_at(browser, page, 1280, dark, 4)
    assert "Rank 341 is a straggler" in browser.evaluate("document.querySelector('#verdict').innerText")
    rows = browser.evaluate("document.getElementById('figure-waiting').data[0].y.length")
    assert rows == figures.BOUNDS.rows


@pytest.fixture(scope="module")
def two(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two ranks, which is not written over."""
    folder = tmp_path_factory.mktemp("two")
    words = ("ranks", str(traces / "nsys" / "mfu_2gpu_before.sqlite"), "-o", "two.html")
    ran, again = moeprof(*words, cwd=folder), moeprof(*words, cwd=folder)
    assert ran.returncode == 0 and ran.stdout.endswith("Wrote two.html\n")
    assert again.returncode == 2 and "two.html exists" in again.stderr
    return folder / "two.html"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_of_two_ranks_in_a_browser(browser: Browser, two: Path, width: int, dark: bool) -> None:
    looked_at(browser, two, width, dark, 4)
    assert browser.evaluate("Number(document.querySelector('#lanes figure.timeline').dataset.drawn)") > 1_000
    assert "collective waits for the last rank" in browser.evaluate(
        "document.querySelector('#lanes .tl-legend').innerText"
    )
    heads = browser.evaluate(f"{T}.items().filter(i => i.kind === 'head').map(i => i.group.label)")
    assert heads == ["rank 0", "rank 1"], "a group of lanes for each rank"
    lanes = f"{T}.items().filter(i => i.lane && i.lane.kind === 'collectives').map(i => i.lane.n)"
    assert len(browser.evaluate(lanes)) == 2 and min(browser.evaluate(lanes)) > 10


def looked_at(browser: Browser, page: Path, width: int, dark: bool, figures: int) -> None:
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    drawn = browser.evaluate(
        "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0 && f.getBoundingClientRect().height > 100)"
    )
    assert drawn == [True] * figures
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "no sideways scrolling of the page"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('.figure')].every(f => f.closest('section').querySelector('table'))"
    )
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.requests() == [] and browser.complaints() == []


def test_lanes_show_what_each_rank_did(traces: Path) -> None:
    assert traces
    made, _ = grow(rank_traces.real(), Planted((0, 5_000), late={1: ("compute", 400_000)}))
    facts = facts_of(made, one_clock=False, drawn=True)
    analysis = analyse_ranks("made", facts)
    first, second = lanes(facts, analysis)
    waits = {lane.rank: dict(lane.parts).get(WAITING) for lane in (first, second)}
    assert waits[0] is not None and waits[0].total_ns > 1_000_000
    assert waits[1] is None or waits[1].total_ns < 10_000
    window = analysis.ranks[0].windows[analysis.critical[0].instance or 0]
    assert sum(bars.total_ns for name, bars in first.parts if name == WAITING) <= window.span_ns
    assert min(int(bars.starts[0]) for lane in (first, second) for _, bars in lane.parts) == pytest.approx(0, abs=10)


def test_the_drawn_window_is_on_the_joint_clock(traces: Path) -> None:
    assert traces
    made, truth = grow(rank_traces.real(), Planted((0, 5_000_000), late={1: ("compute", 400_000)}))
    facts = facts_of(made, one_clock=False, drawn=True)
    analysis = analyse_ranks("made", facts)
    ranks = [RankTrace(place.rank, 0, trace) for place, trace in made]
    drawn = joint(ranks, windows(facts, analysis), lanes(facts, analysis))
    assert drawn is not None and [d.index for d in drawn.trace.devices] == [0, 1]
    ops, calls = drawn.trace.ops, drawn.trace.calls
    comm = [ops[(ops["device"] == rank) & (ops["kind"] == "comm")] for rank in (0, 1)]
    count = len(comm[0])
    ends = [rows["end_ns"].to_numpy() for rows in comm]
    assert count == len(comm[1]) and abs(ends[0] - ends[1]).max() < 5_000, "all leave together, whatever their clocks"
    late = (comm[1]["start_ns"].to_numpy() - comm[0]["start_ns"].to_numpy()).tolist()
    planted = (truth.arrivals[1] - truth.arrivals[0]).tolist()
    assert any(abs(late[0] - p) < 5_000 for p in planted), "rank 1 arrives as late as it was made"
    joined = ops[ops["call"] >= 0]
    launchers = calls.loc[joined["call"]]
    assert len(joined) > 0.9 * len(ops) and (launchers["pid"].to_numpy() == joined["device"].to_numpy()).all()
    assert (launchers["start_ns"].to_numpy() <= joined["start_ns"].to_numpy()).all(), "each rank's calls are its own"
    assert drawn.start_ns <= 0 < drawn.end_ns and calls["start_ns"].is_monotonic_increasing


def test_of_many_ranks_the_listed_ones_get_lanes(command: Run, traces: Path, tmp_path: Path) -> None:
    assert traces
    made, _ = grow(rank_traces.real(4, 2), Planted((0,) * 20, jitter=0.01, late={7: ("compute", 300_000)}))
    write_folder(tmp_path / "set", made)
    (group,) = groups.groups(tmp_path / "set")
    analysis, facts = groups.analyse_group(group)
    assert lanes(facts, analysis) == ()
    listed = [r.place.rank for r in rank_tables.listed(analysis.ranks)]
    drawn = lanes(groups.with_bars(group, facts, listed, COMMUNICATION), analysis)
    assert len(drawn) == 12 and {lane.rank for lane in drawn} == set(listed) and 7 in listed
    ran = command("ranks", "set", "-o", "page.html", "--json")
    assert ran.code == 0 and len(json.loads(ran.out)["ranks"]) == 20 and ran.err.splitlines()[0].startswith("1 of 20: ")
    payload = timelines.payload_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [g["label"] for g in payload["groups"]] == [f"rank {rank}" for rank in sorted(listed)]


def test_hostile_names_stay_text(traces: Path) -> None:
    assert traces
    made, _ = grow(rank_traces.real(4, 2), Planted((0, 0), late={1: ("compute", 300_000)}))
    facts = facts_of(made)
    analysis = replace(
        analyse_ranks("<script>alert(1)</script>", facts, series={"<b>rows</b>": [1, 2]}), variant="<i>x</i>"
    )
    body = html.render(ranks.page(((analysis, None),)))
    assert not any(text in body for text in ("<script>alert", "<b>rows", "<i>x"))
    assert "&lt;b&gt;rows" in body and "&lt;i&gt;x" in body


def _ms(text: str) -> float:
    return float(text.removesuffix(" ms").replace(",", ""))


@pytest.mark.parametrize("kind", ["compute", "host"])
def test_no_part_of_a_delay_is_larger_than_the_delay(traces: Path, kind: str) -> None:
    """Bars are as long as the delay in the table, and a straggler's cause has at most its delay."""
    assert traces
    planted = Planted((0,) * 4, jitter=0.02, late={2: (kind, 900_000)}, stretched={3: 0.9})
    analysis = rank_traces.analysed(grow(rank_traces.real(8, 4), planted)[0])
    assert analysis.stragglers, "a planted straggler is found"
    for table in (rank_tables.stragglers(analysis),):
        behind, part = table.header.index("behind"), table.header.index("by cause")
        assert all(_ms(row[part]) <= _ms(row[behind]) for row in table.rows), table.rows
    table = rank_tables.ranks(analysis)
    delays = {
        f"rank {row[0]}": _ms(row[table.header.index("behind")])
        for row in table.rows
        if "–" not in row[table.header.index("behind")]
    }
    drawn = figures.stragglers(analysis)
    assert drawn is not None
    for place, rank in enumerate(drawn.data[0].y):
        length = sum(bar.x[place] for bar in drawn.data)
        assert length == pytest.approx(delays[rank], rel=2e-2, abs=2e-3), (rank, length, delays)
