"""One page, four outputs: each shows the parts of its detail, in the order of the page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.report import html, markdown, text
from moeprof.report.page import Bullets, Item, Page, Paragraph, Section, Table, section, shows, verdict

HEADER = ("name", "value", "proof")


def table(name: str, detail: str) -> Table:
    return Table(name, HEADER, ((f"row of {name}", "1", "long proof"),), detail=detail, wide=("proof",))  # type: ignore[arg-type]


PAGE = Page(
    "title of the page",
    "lead",
    (
        verdict(("it is faster",), "FASTER", "copy early"),
        section("one", "First section", "how to read it", None, (table("brief", "summary"), table("middle", "report"))),
        section("two", "Second section", "", None, (table("deep", "page"),)),
        Section("list", "Third", below=(Bullets((Item("a < b", "warning", "summary"), Item("hidden", "info"))),)),
    ),
    data={"x": 1},
)


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        (text.render(PAGE), "brief"),
        (markdown.render(PAGE), "brief middle"),
        (html.render(PAGE), "brief middle deep"),
    ],
)
def test_an_output_shows_the_tables_of_its_detail(shown: str, seen: str) -> None:
    names = ("brief", "middle", "deep")
    assert " ".join(name for name in names if f"row of {name}" in shown) == seen
    assert shown.index("it is faster") < shown.index("row of brief"), "the verdict before any number"
    assert ("Second section" in shown) == ("deep" in seen), "no title without a part"
    assert ("hidden" in shown) == ("deep" in seen)


def test_the_terminal_leaves_wide_columns_and_repeated_captions_out() -> None:
    assert "long proof" not in text.render(PAGE) and "long proof" in markdown.render(PAGE)
    repeated = section("s", "brief", "", None, (table("brief", "summary"),))
    assert text.render(replace(PAGE, sections=(repeated,))).splitlines().count("brief") == 1


def test_the_first_line_is_the_verdict_the_headline_or_the_title() -> None:
    rest = PAGE.sections[1:]
    assert text.render(PAGE).startswith("FASTER  it is faster")
    assert text.render(replace(PAGE, sections=rest)).startswith("title of the page\nlead")
    assert text.render(replace(PAGE, sections=rest, headline="no change found")).startswith("no change found")


def test_text_is_escaped_and_details_are_ordered() -> None:
    assert "a &lt; b" in html.render(PAGE) and "a &lt; b" in markdown.render(PAGE) and "a < b" in text.render(PAGE)
    assert shows("page", "summary") and shows("report", "report") and not shows("summary", "report")
    assert "<code>moeprof x</code>" in html.render(
        Page("t", "", (Section("s", above=(Paragraph("ran:", "how", "moeprof x"),)),))
    )
