"""Figures are data: the page of current figures is generated, and documents quote current rows with their own digits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import documents
import pytest
import render_results
from paths import ROOT
from render_results import VERDICTS, Row

TOPICS = render_results.read()
ROWS = render_results.rows(TOPICS)
EXPERIMENTS = [experiment for topic in TOPICS for experiment in topic.experiments]
INDEX = ROOT / "docs" / "results" / "index.md"
QUOTING = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {INDEX})
NUMBER = r"\d[\d,]*(?:\.\d+)?"
FIGURE = re.compile(rf"{NUMBER}\s?(?:x|%|times|[mnuµ]?s|[GT]B/s|TFLOP/s)(?![\w/])|\d+\.\d+")
NOT_MEASURED = {"3.11", "2.0"}  # Python and the licence


def faults(rows: dict[str, Row]) -> list[str]:
    """What is wrong with the rows by themselves."""
    found = [f"{row.id}: verdict {row.verdict!r}" for row in rows.values() if row.verdict not in VERDICTS]
    found += [f"{row.id}: no expectation" for row in rows.values() if row.verdict != "measured" and not row.expected]
    found += [
        f"{row.id}: value {row.value!r}" for row in rows.values() if not re.fullmatch(r"-?\d+(\.\d+)?", row.value)
    ]
    found += [f"{row.id}: a bar" for row in rows.values() if "|" in row.what + row.expected]
    for row in rows.values():
        if row.current == bool(row.superseded_by):
            found.append(f"{row.id}: neither current nor superseded, or both")
        elif row.superseded_by and row.superseded_by not in rows:
            found.append(f"{row.id}: its successor {row.superseded_by} does not exist")
        elif row.superseded_by and not rows[row.superseded_by].current:
            found.append(f"{row.id}: its successor {row.superseded_by} is superseded itself")
    return found


def wrong_quotes(text: str, rows: dict[str, Row]) -> list[str]:
    """Links to rows that are not current, or whose words are not the row's figure."""
    found = []
    for words, target in documents.LINK.findall(text):
        path, _, name = target.partition("#")
        if not path.endswith("results/index.md") or name not in rows:
            continue  # a page or an experiment; that its anchor exists is a test of its own
        row, quoted = rows[name], words.strip("*")
        if not row.current or quoted not in (row.figure, row.value):
            found.append(f"{quoted}: {name} is {row.figure}" + ("" if row.current else ", superseded"))
    return found


def unlinked_figures(text: str) -> list[str]:
    """Figures that no link leads to a row."""
    return [figure for figure in FIGURE.findall(documents.LINK.sub("", text)) if figure not in NOT_MEASURED]


def test_rows_are_complete_and_ids_are_unique() -> None:
    ids = [row.id for experiment in EXPERIMENTS for row in experiment.rows] + [e.id for e in EXPERIMENTS]
    assert len(ids) == len(set(ids)) and len(ROWS) >= 250
    assert faults(ROWS) == []
    for experiment in EXPERIMENTS:
        assert experiment.rows and all((experiment.what, experiment.machine, experiment.versions, experiment.command))
        assert experiment.expected and experiment.when.year >= 2026, experiment.id
        assert experiment.notes.startswith(str(experiment.when)), experiment.id
        assert (ROOT / "docs" / "lab_notes" / experiment.notes.partition("#")[0]).is_file(), experiment.id


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"verdict": "great"}, "verdict 'great'"),
        ({"verdict": "missed", "expected": ""}, "no expectation"),
        ({"value": "some 3"}, "value 'some 3'"),
        ({"current": False}, "neither current nor superseded"),
        ({"current": False, "superseded_by": "gone"}, "its successor gone does not exist"),
        ({"current": False, "superseded_by": "old"}, "its successor old is superseded itself"),
    ],
)
def test_a_fault_of_a_row_is_found(change: dict[str, object], fault: str) -> None:
    good = Row("new", "a time", "1.5", "ms", "reached", "< 2 ms", current=True)
    old = replace(good, id="old", current=False, superseded_by="new")
    assert faults({"new": good, "old": old}) == []
    changed = {"new": good, "old": old, "other": replace(good, id="other", **change)}  # type: ignore[arg-type]
    assert any(fault in line and line.startswith("other") for line in faults(changed))


def test_the_page_is_up_to_date() -> None:
    assert INDEX.read_text(encoding="utf-8") == render_results.render(TOPICS), "run python scripts/render_results.py"
    assert render_results.main(["--check"]) == 0
    current = [row.id for row in ROWS.values() if row.current]
    text = INDEX.read_text(encoding="utf-8")
    assert len(current) > 150 and [name for name in ROWS if f'<a id="{name}">' in text] == current


SCALE = {"ms": 1e-6, "%": 100.0, "MB": 1e-6, "x": 1.0, "GB/s": 1.0, "": 1.0}  # of ns, bytes and ratios


def in_sample(row: Row) -> str:
    """The figure of the sample that the row names, with the row's digits."""
    name, variant, path = row.sample.split()
    rows = json.loads((ROOT / "reports" / "samples" / name / "expected.json").read_text())["rows"]
    (value,) = [found for found in rows if found["name"] == variant]
    for key in path.split("."):
        value = value[key]
    digits = len(row.value.partition(".")[2])
    return f"{value * SCALE[row.unit]:.{digits}f}"


def test_figures_of_samples_that_ship_are_those_of_the_samples() -> None:
    rows = [row for row in ROWS.values() if row.sample]
    assert len(rows) >= 30
    assert [(row.id, in_sample(row)) for row in rows] == [(row.id, row.value) for row in rows]


@pytest.mark.parametrize("document", QUOTING, ids=lambda path: str(path.relative_to(ROOT)))
def test_quoted_figures_are_current_rows(document: Path) -> None:
    assert wrong_quotes(documents.prose(document), ROWS) == []


def test_every_figure_of_the_readme_is_a_current_row() -> None:
    text = documents.prose(ROOT / "README.md")
    quoted = [target for _, target in documents.LINK.findall(text) if "results/index.md#" in target]
    assert len(quoted) >= 10 and all(target.partition("#")[2] in ROWS for target in quoted)
    assert unlinked_figures(text) == []


@pytest.mark.parametrize("name", ["kv_transfer", "router", "decode", "expert_parallel"])
def test_every_measured_figure_of_a_workload_is_a_current_row(name: str) -> None:
    text = documents.prose(ROOT / "docs" / "explanation" / f"{name}.md")
    (section,) = re.findall(r"^## Measured$(.*?)(?=^## |\Z)", text, flags=re.S | re.M)
    assert len(documents.LINK.findall(section)) >= 5 and unlinked_figures(section) == []


def test_a_wrong_a_superseded_and_an_unlinked_figure_are_found() -> None:
    page = "docs/results/index.md"
    assert wrong_quotes(f"[1.68x]({page}#kv-graph-speedup), [**1.68**]({page}#kv-graph-speedup)", ROWS) == []
    assert wrong_quotes(f"[1.69x]({page}#kv-graph-speedup)", ROWS) == ["1.69x: kv-graph-speedup is 1.68x"]
    assert "superseded" in wrong_quotes(f"[1.243x]({page}#ep-plain-peer-copy-speedup)", ROWS)[0]
    assert unlinked_figures("wins 1.05 times, 99 % in 3 ms at 4,444 GB/s; Python 3.11, 32 layers") == [
        "1.05 times",
        "99 %",
        "3 ms",
        "4,444 GB/s",
    ]
