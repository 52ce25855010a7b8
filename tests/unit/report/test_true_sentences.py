"""Over all samples and shared traces: no part is larger than its whole, no number differs from its table's, no lesson contradicts
the verdict, and every command that is printed can be typed."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import analysed_traces
import click
import pytest
from builders import counted_captures
from paths import ROOT, TRACES
from quoted import strangers

from moeprof.cli.main import cli
from moeprof.compare import variants
from moeprof.kernels import roofline_points
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture
from moeprof.report import build
from moeprof.report.narrative.narrative import Narrative, narrate
from moeprof.report.page import Bullets, Facts, Page, Paragraph, Section
from moeprof.units import amount, ms

SAMPLES = sorted(p.parent for p in (ROOT / "reports" / "samples").glob("*/manifest.json"))
COMMAND = re.compile(r"moeprof (?:[a-z]+)(?: [^\s,;.)]+)*")
ABOVE_ONE = ("speed-up", "of the yardstick", "≥ 100 %", "longer")  # shares that are no parts of a whole


def every_trace() -> list[Path]:
    return sorted(p for p in TRACES.glob("*/*") if p.name.endswith((".sqlite", ".json", ".json.gz")))


@functools.cache
def sample(folder: Path) -> tuple[Capture, Narrative]:
    loaded = capture.load(folder)
    return loaded, narrate(variants.compare(loaded), loaded.manifest.shows)


@functools.cache
def page_of(path: Path) -> Page:
    if path.is_dir():
        return build.page_of((capture.load(path),))
    return analysed_traces.of_file(path)[0]


def texts(page: Page) -> Iterator[str]:
    """Every sentence and cell of a page."""
    yield from (page.title, page.lead)
    for section in page.sections:
        yield from _texts(section)


def _texts(section: Section) -> Iterator[str]:
    yield from (section.title, section.note)
    for block in (*section.above, *section.below):
        if isinstance(block, Paragraph):
            yield block.text
        elif isinstance(block, Facts):
            yield from (f"{line.text} {line.code}" for line in block.lines)
        elif isinstance(block, Bullets):
            yield from (item.text for item in block.items)
    for table in section.tables:
        yield from (cell for row in table.rows for cell in row)
    for part in section.parts:
        yield from _texts(part)


ALL = [*SAMPLES, *every_trace()]


def named(path: Path) -> str:
    return "/".join(path.parts[-2:])


@pytest.mark.parametrize("path", every_trace(), ids=named)
def test_no_share_is_above_its_whole(path: Path) -> None:
    for text in texts(page_of(path)):
        for share in re.findall(r"(?<![\d.])([\d,.]*\d) %", text):
            assert float(share.replace(",", "")) <= 100 or any(word in text for word in ABOVE_ONE), text


@pytest.mark.parametrize("path", every_trace(), ids=named)
def test_the_numbers_of_an_answer_are_in_the_tables(path: Path) -> None:
    page = page_of(path)
    cells = " | ".join(cell for s in page.sections for t in s.tables for row in t.rows for cell in row)
    answer = next(s for s in page.sections if s.id == "answer")
    lines = {line.label: line.text for block in answer.above if isinstance(block, Facts) for line in block.lines}
    judged = lines.get("Judged", "")  # has its own numbers: how much was judged
    for text in (page.title, lines.get("Slow", "")):
        assert [n for n in strangers(text, f"{cells} | {judged}") if n[1] in ("ms", "%")] == [], text


@pytest.mark.parametrize("folder", SAMPLES, ids=named)
def test_parts_of_an_iteration_fit_into_what_they_are_parts_of(folder: Path) -> None:
    """The times that the summary names in one breath with a clean time are below it, or their own whole is named."""
    loaded, words = sample(folder)
    comparison = variants.compare(loaded)
    slow = words.closing[0]
    row = comparison.row(comparison.baseline)
    assert row is not None and row.time_ns is not None
    whole = ms(row.traced_ns) if row.traced_ns and ms(row.traced_ns) in slow else ms(row.time_ns.value)
    times = [float(t.replace(",", "")) for t in re.findall(r"([\d,.]+) ms", re.split(r"\. ", slow, maxsplit=1)[1])]
    limit = float(whole.split()[0].replace(",", ""))
    parts = [t for t in times if f"{t:g}" != f"{limit:g}"]
    assert sum(parts) <= limit * 1.1, slow


@pytest.mark.parametrize("folder", SAMPLES, ids=named)
def test_no_lesson_contradicts_the_verdict(folder: Path) -> None:
    loaded, words = sample(folder)
    comparison = variants.compare(loaded)
    row = comparison.row(comparison.optimized)
    assert row is not None and row.verdict is not None and row.time_ns is not None
    equal = [
        r.name for r in comparison.rows
        if r.verdict and r.verdict.word == "FASTER" and r.time_ns and r is not row and r.time_ns.value <= 1.01 * row.time_ns.value
    ]  # fmt: skip
    assert words.lesson.startswith(loaded.manifest.shows)
    assert all(name in words.lesson for name in equal), "a variant that is as fast is named beside the lesson"


def changed(loaded: Capture, scale: float) -> Capture:
    """The capture with an optimized variant that takes ``scale`` times as long."""
    found = next(v for v in loaded.variants if v.record.name == loaded.manifest.optimized)
    rounds = tuple(replace(r, times_ns=tuple(round(scale * t) for t in r.times_ns)) for r in found.record.rounds)
    slow = replace(found, record=replace(found.record, rounds=rounds))
    return replace(loaded, variants=tuple(slow if v is found else v for v in loaded.variants))


def test_a_lesson_that_the_verdict_refutes_is_said_to_be_unconfirmed() -> None:
    loaded = changed(counted_captures.plain(), 3.0)
    words = narrate(variants.compare(loaded), "streams pay")
    assert words.lesson == "not confirmed here, where graph is SLOWER: streams pay"
    bare = replace(loaded, variants=loaded.variants[:1])
    assert narrate(variants.compare(bare), "streams pay").lesson == ""


def test_a_hit_rate_above_all_is_an_artefact_of_counting() -> None:
    assert amount("share", 1.085) == "≥ 100 %" and amount("share", 0.885) == "88.5 %"


# -- hints


def commands(text: str) -> list[str]:
    return [match.rstrip(":") for match in COMMAND.findall(text)]


def option_names(command: click.Command) -> set[str]:
    return {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)} | {
        "--help"
    }


def parses(line: str) -> bool:
    """Whether a printed command names a command and options that exist."""
    _, name, *words = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        return False
    words = words[: words.index("--")] if "--" in words else words
    return all(word.split("=")[0] in option_names(command) for word in words if word.startswith("--"))


@pytest.mark.parametrize("path", ALL, ids=named)
def test_every_command_that_a_page_prints_can_be_typed(path: Path) -> None:
    lines = [line for text in texts(page_of(path)) if "python" not in text.split(" ")[0] for line in commands(text)]
    assert [line for line in lines if not parses(line)] == []


def program(loaded: Capture) -> Capture:
    argv = ("moeprof", "capture", "--", "python3", "train.py", "--lr", "1e-3")
    return replace(loaded, manifest=replace(loaded.manifest, kind="program", name="python3", argv=argv))


@pytest.mark.parametrize(
    ("change", "line"),
    [(program, "moeprof capture --tools nsys,ncu -- python3 train.py --lr 1e-3"), (lambda c: c, "moeprof capture kv_transfer --tools nsys,ncu")],
)  # fmt: skip
def test_the_hint_to_count_kernels_runs(change: Callable[[Capture], Capture], line: str) -> None:
    loaded = change(counted_captures.plain())
    hint = next(text for text in roofline_points.roofline(loaded).missing if "moeprof capture" in text)
    assert f"{line};" in hint and parses(line)
    assert not parses("moeprof capture python3 --tool nsys,ncu") and not parses("moeprof nothing")
