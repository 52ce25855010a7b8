"""The sections below the findings of a trace's page: each number is the analysis', and each section has data that matters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import analysed_traces
import pytest
from builders.trace_tables import trace
from markupsafe import escape
from paths import TRACES
from recorded import recordings

from moeprof import units
from moeprof.analysis.model import Analysis, Passes
from moeprof.report import html, markdown
from moeprof.report.figures.passes import MOST_ROWS, PARTS
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.kernel_names import labels
from moeprof.report.page import Page, Section, Table
from moeprof.report.trace_sections import MATTERS, MAX_KERNELS, sections
from moeprof.storage.json import encode

NAMES = ("sync-item-faulty", "tiny-copies-faulty", "late-issue-faulty", "startend", "peer", "empty-cache-mended")
REAL = (
    "nsys/mfu_2gpu_before.sqlite", "nsys/mfu_2gpu_after.sqlite", "nsys/h100_2gpu_1s.sqlite", "nsys/cloverleaf_a100_2024.5.sqlite",
    "nsys/saxpy_mpi_2022.2.sqlite", "h200/streams_graph_node.sqlite", "h200/streams_graph_whole.sqlite", "h200/torch_profiler.json",
    "kineto/hta_diff_control.json.gz", "kineto/hta_diff_test.json.gz", "kineto/vllm_decode_graph.json.gz", "kineto/h100_qwen.json.gz",
)  # fmt: skip


def page_of(name: str) -> tuple[Page, Analysis]:
    """Of a recording of the checkout, or of a real trace where its folder is there."""
    if "/" not in name:
        return analysed_traces.of_file(recordings.path(name))
    if not (TRACES / name).is_file():
        pytest.skip(f"the real traces are absent: {TRACES}")
    return analysed_traces.of_file(TRACES / name)


def every_table(parts: tuple[Section, ...]) -> Iterator[tuple[str, Table]]:
    for section in parts:
        yield from ((section.id, table) for table in section.tables)
        yield from every_table(section.parts)


def column(table: Table, name: str) -> list[str]:
    place = table.header.index(name)
    return [row[place] for row in table.rows]


@pytest.mark.parametrize("name", [*NAMES, *REAL])
def test_every_number_of_a_table_is_in_the_json(name: str) -> None:
    page, _ = page_of(name)
    data = page.data  # what moeprof analyze --json prints
    tables: dict[str, list[Table]] = {}
    for id, table in every_table(page.sections):
        tables.setdefault(id.partition("-")[0], []).append(table)
    for table in tables.get("kernels", []):
        if table.caption == "Kernels by family":
            assert column(table, "total") == [units.ms(f["total_ns"]) for f in _by_device(data["families"], table)]
            assert column(table, "idle before") == [
                units.ms(f["idle_before_ns"]) for f in _by_device(data["families"], table)
            ]
            continue
        device = next(d for d in {k["device"] for k in data["kernels"]} if table.caption.endswith(f" {d}"))
        kernels = sorted(
            (k for k in data["kernels"] if k["device"] == device), key=lambda k: (-k["total_ns"], k["name"])
        )
        whole = sum(k["total_ns"] for k in kernels)
        kernels = kernels[:MAX_KERNELS]
        assert column(table, "count") == [units.number(k["count"]) for k in kernels]
        assert column(table, "share") == [units.percent(k["total_ns"] / whole) for k in kernels]
        for header, key in (("median", "median_ns"), ("exposed", "exposed_ns"), ("idle before", "idle_before_ns")):
            assert column(table, header) == [units.us(k[key]) for k in kernels]
        assert table.look is not None and list(table.look.titles) == [k["name"] for k in kernels]
    for table, of in zip(tables.get("passes", []), _main_first(data["passes"], page), strict=True):
        lengths = {p["name"]: p for p in of["passes"]}
        for row in table.rows:
            one = lengths[row[0].removesuffix(" (median)")]
            assert row[1] == units.ms(one["span_ns"])
            told = dict(zip(table.header[3:], row[3:], strict=True))
            for part in PARTS:
                ns = one[part.of].get(part.key, 0)
                assert told.get(part.label, units.ms(0)) == units.ms(ns)
    _check_others(tables, data)


def _check_others(tables: dict[str, list[Table]], data: dict) -> None:  # type: ignore[type-arg]
    """Ranges, copies, communication, memory, launches."""
    for table in tables.get("ranges", []):
        if table.caption == "Ranges by GPU time":
            times = {units.ms(n["gpu_ns"]) for n in data["range_tree"]}
            assert set(column(table, "GPU time")) <= times and table.rows
    for table in tables.get("copies", []):
        rows = (
            data["copy_sizes"]
            if table.caption == "Copies by size"
            else [c for w in data["windows"] for c in w["copies"]]
        )
        assert column(table, "exposed") == [units.ms(c["exposed_ns"]) for c in rows]
        assert column(table, "GB/s") == [units.rate(c["throughput_gb_per_s"]) for c in rows]
    for table in tables.get("communication", []):
        assert column(table, "exposed") == [
            units.ms(c["exposed_ns"]) for w in data["windows"] for c in w["communication"]
        ]
    for table in tables.get("memory", []):
        assert column(table, "peak") == [units.size(m["peak_bytes"]) for m in data["memory"]]
    for table in tables.get("launches", [])[:1]:
        assert set(column(table, "launch call, median")) <= {
            units.us(w["launch"]["api_ns_median"]) for w in data["windows"]
        }


def _by_device(families: list[dict], table: Table) -> list[dict]:  # type: ignore[type-arg]
    devices = list(dict.fromkeys(column(table, "device"))) if "device" in table.header else [""]
    order = {name: place for place, name in enumerate(devices)}
    named = [(order[f"GPU {f['device']}"] if len(devices) > 1 else 0, f) for f in families]
    return [f for _, f in sorted(named, key=lambda entry: entry[0])]


def _main_first(passes: list[dict], page: Page) -> list[dict]:  # type: ignore[type-arg]
    captions = [t.caption for id, t in every_table(page.sections) if id.startswith("passes")]
    return [
        next(p for p in passes if re.search(rf"(GPU|CPU) {p['device']}\b|CPU$", c.partition(":")[0])) for c in captions
    ]


@pytest.mark.parametrize("name", [*NAMES, *REAL])
def test_no_share_is_more_than_the_whole_and_no_section_is_empty(name: str) -> None:
    page, analysis = page_of(name)
    for _, table in every_table(page.sections):
        assert table.rows
        for row in table.rows:
            assert all(float(share.replace(",", "")) <= 100 for share in re.findall(r"([\d,.]+) %", " ".join(row)))
    ids = [s.id for s in page.sections]
    assert ids[-1] == "glossary" and len(ids) == len(set(ids))
    assert ("passes" in ids) == bool(analysis.passes) and ("memory" in ids) == bool(analysis.memory)
    assert page.data == encode(analysis)


@pytest.mark.parametrize("name", ["sync-item-faulty", *REAL])
def test_what_takes_little_time_is_folded(name: str) -> None:
    page, analysis = page_of(name)
    for id, part in (("copies", "exposed_copy_ns"), ("communication", "exposed_comm_ns")):
        section = next((s for s in page.sections if s.id == id), None)
        share = max(getattr(w.ledger, part) / w.span_ns for w in analysis.windows)
        if section is not None:
            assert section.folded == (share < MATTERS) and units.percent(share) in section.title


def test_the_slowest_step_is_marked_and_explained() -> None:
    page, analysis = page_of("nsys/mfu_2gpu_after.sqlite")
    section = next(s for s in page.sections if s.id == "passes")
    slow = analysis.passes[0].slow[0]
    told = str(section.above)
    assert units.ms(slow.longer_ns) in section.title and "cudaMemsetAsync" in told
    marked = section.tables[0].marked
    assert marked is not None and section.tables[0].rows[marked][0] == analysis.passes[0].passes[slow.index].name
    rendered = html.render(page)
    assert rendered.count('class="pass slowest"') == len(analysis.passes)


def test_many_steps_are_a_heat_map_whose_table_names_the_slowest() -> None:
    _, analysis = page_of("nsys/mfu_2gpu_after.sqlite")
    of = analysis.passes[0]
    many: Passes = replace(of, passes=of.passes * 50)
    assert len(many.passes) > MOST_ROWS
    section = next(
        s for s in sections(replace(analysis, passes=(many,)), {0: "GPU 0", 1: "GPU 1"}, 0) if s.id == "passes"
    )
    rendered = html.render(Page("t", "", (section,)))
    cells = re.findall(r'<a class="heat-(\d)"', rendered)
    assert 300 <= len(cells) <= 600 and "6" not in cells and "4" in cells
    assert len(section.tables[0].rows) == 1 + len(of.slow) and "analyze --json has all" in section.tables[0].caption


def test_the_same_label_is_in_the_table_and_in_the_timeline() -> None:
    page, analysis = page_of("tiny-copies-faulty")
    known = set(timeline_data(recordings.trace("tiny-copies-faulty")).payload["names"])
    table = next(t for id, t in every_table(page.sections) if t.caption == "Kernels of GPU 0")
    assert {row[0] for row in table.rows} <= known
    assert {row[0] for row in table.rows} == set(labels(k.name for k in analysis.kernels).values())


def test_markdown_has_the_same_tables() -> None:
    page, _ = page_of("tiny-copies-faulty")
    text = markdown.render(page)
    for caption in ("Kernels of GPU 0", "Copies by direction and memory", "Kernels by family"):
        assert f"**{caption}**" in text


def test_words_are_explained_where_they_occur_and_no_others() -> None:
    page, _ = page_of("tiny-copies-faulty")
    words = [word for word, _ in page.terms]
    assert "exposed" in words and "H2D" in words and "P2P" not in words
    rendered = html.render(page)
    for number, (_, meaning) in enumerate(page.terms, 1):
        assert f'<div popover id="term-{number}"' in rendered and str(escape(meaning)) in rendered
    targets = {int(n) for n in re.findall(r'popovertarget="term-(\d+)"', rendered)}
    assert targets <= set(range(1, len(words) + 1)) and targets


def test_hostile_names_stay_text_in_every_figure() -> None:
    hostile = '</script><script>alert(1)</script><!-- & "quotes" \''
    calls = [{"start_ns": i * 100 + 1, "end_ns": i * 100 + 2} for i in range(40)]
    ops = [{"start_ns": i * 100 + 5, "end_ns": i * 100 + 50, "name": f"{hostile}{i % 2}", "call": i} for i in range(40)]
    ranges = [{"start_ns": i * 200, "end_ns": i * 200 + 190, "name": hostile, "domain": ""} for i in range(20)]
    page, analysis = analysed_traces.shown(trace(ops, calls, ranges), "a.sqlite")
    assert analysis.range_tree and analysis.passes
    rendered = html.render(page)
    assert "alert(1)</script>" not in rendered and "<!--" not in rendered
    assert rendered.count("<script") == rendered.count("</script")
