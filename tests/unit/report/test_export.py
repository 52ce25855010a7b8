"""Exports: a timeline that reads back to the same numbers, tables without loss, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders.sample_captures import SAMPLE, Ran, made, variant
from recorded import recordings

from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import views
from moeprof.loaded import capture as study
from moeprof.report.export import chrome
from moeprof.storage.manifest import VariantRecord
from moeprof.trace import Trace, read

Run = Callable[..., Ran]


def read_back(trace: Trace, folder: Path) -> Trace:
    path = folder / "back.json"
    path.write_text("".join(chrome.lines(trace)), encoding="utf-8")
    return read(path)


@pytest.mark.parametrize("name", ["baseline", "overlap", "graph"])
def test_a_timeline_reads_back_to_the_same_numbers(tmp_path: Path, name: str) -> None:
    trace = study.load(SAMPLE).variant(name).trace
    back = read_back(trace, tmp_path)
    assert back.devices[0].name == "NVIDIA H200" and len(back.ops) == len(trace.ops)
    for column in (
        "kind",
        "direction",
        "src_memory",
        "stream",
        "bytes",
        "graph_node",
        "grid_x",
        "block_x",
        "registers",
    ):
        assert list(back.ops[column]) == list(trace.ops[column]), column
    one, other = analyze(trace, None, None, views(trace)).windows[0], analyze(back, None, None, views(back)).windows[0]
    assert (one.ledger, one.idle, one.copies, one.span_ns) == (other.ledger, other.idle, other.copies, other.span_ns)
    assert replace(one.launch, calls=()) == replace(other.launch, calls=())
    kept = back.ranges.merge(trace.ranges, on=["name", "domain", "payload"])
    assert len(kept) == (trace.ranges["style"] == "pushpop").sum()


@pytest.mark.parametrize("name", recordings.names("faulty")[:4])
def test_other_recordings_read_back_too(tmp_path: Path, name: str) -> None:
    trace = recordings.trace(name)
    back = read_back(trace, tmp_path)
    known = trace.ops["kind"].isin(["kernel", "comm", "copy", "memset"])
    assert len(back.ops) == known.sum()
    length = lambda ops: (ops["end_ns"] - ops["start_ns"]).to_numpy().sum()  # noqa: E731
    assert length(back.ops) == length(trace.ops[known]) and length(back.calls) == length(trace.calls)


def test_arrows_lead_from_the_call_to_what_it_launched() -> None:
    found = list(chrome.events(study.load(SAMPLE).variant("graph").trace))
    begin = {e["id"]: e for e in found if e["ph"] == "s"}
    ends = [e for e in found if e["ph"] == "f"]
    assert ends and {e["id"] for e in ends} == set(begin)
    assert all(begin[e["id"]]["ts"] <= e["ts"] for e in ends)


def test_ranges_that_cross_are_asynchronous(tmp_path: Path) -> None:
    trace = study.load(SAMPLE).variant("graph").trace
    crossing = replace(trace, ranges=trace.ranges.assign(style="startend"))
    found = [e for e in chrome.events(crossing) if e.get("cat") in ("range", "user_annotation")]
    assert [e["ph"] for e in found] == ["b", "e"] * len(trace.ranges)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_lose_nothing(command: Run, tmp_path: Path, form: str) -> None:
    ran = command("export", SAMPLE, "--format", form, "--variant", "overlap", "-o", "out", "--json")
    names = [Path(f).name for f in json.loads(ran.out)["files"]]
    assert names == [
        f"{n}.{form}" for n in ("times", "overlap-ops", "overlap-calls", "overlap-ranges", "overlap-counters")
    ]
    load = {"csv": pd.read_csv, "parquet": pd.read_parquet}[form]
    found = study.load(SAMPLE).variant("overlap")
    times = load(tmp_path / "out" / f"times.{form}")
    assert list(times["time_ns"]) == list(found.record.times_ns) and set(times["variant"]) == {"overlap"}
    assert times["used"].all() and not times["twin"].any()
    ops = load(tmp_path / "out" / f"overlap-ops.{form}")
    assert list(ops.columns) == list(found.trace.ops.columns)
    for column in ops.columns:
        assert list(ops[column].astype(str).where(ops[column].notna(), "")) == list(
            found.trace.ops[column].astype(str)
        ), column


def test_twins_and_disturbed_rounds_are_marked(command: Run, tmp_path: Path) -> None:
    def disturbed(record: VariantRecord) -> VariantRecord:
        first = replace(record.rounds[0], used=False, disturbed=("heat",))
        return replace(record, rounds=(first, *record.rounds[1:]), twin=record.rounds[:2])

    capture = made(tmp_path / "cap", variant("baseline", disturbed), light=True)
    assert command("export", capture, "--format", "csv", "--variant", "baseline", "-o", "out").code == 0
    times = pd.read_csv(tmp_path / "out" / "times.csv")
    assert set(times.loc[times["twin"], "round"]) == {0, 1} and times["variant"].eq("baseline").all()
    assert set(times.loc[~times["used"], "round"]) == {0} and not times.loc[~times["used"], "twin"].any()


def test_markdown_is_the_report_in_short(command: Run, tmp_path: Path) -> None:
    assert command("export", SAMPLE, "--format", "markdown").out == "Wrote moeprof-out/kv_transfer-markdown/report.md\n"
    written = (tmp_path / "moeprof-out" / "kv_transfer-markdown" / "report.md").read_text()
    assert "graph is 1.68 times as fast as baseline" in written and "| sum | 29.55 ms | 17.48 ms |" in written
    assert "warning: the SM clock fell" in written


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((SAMPLE, "--format", "pdf"), 2, "pdf"), (("gone", "--format", "csv"), 1, "not a capture"), ((SAMPLE, "--format", "csv", "--variant", "x"), 2, "no variant"),
        (("light", "--format", "chrome-trace"), 1, "holds no trace"), ((SAMPLE, "--format", "markdown", "-o", "full"), 2, "exists"),
        ((SAMPLE, "--format", "markdown", "--variant", "graph"), 2, "all variants"),
    ],
)  # fmt: skip
def test_what_cannot_be(command: Run, tmp_path: Path, words: tuple[Any, ...], code: int, said: str) -> None:
    made(tmp_path / "light", light=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.md").write_text("mine")
    ran = command("export", *words)
    assert ran.code == code and said in ran.err and "Traceback" not in ran.err
    assert (tmp_path / "full" / "report.md").read_text() == "mine"


def test_a_file_is_whole_or_not_there_and_a_name_leads_nowhere_else(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trace: Trace) -> Any:
        yield "{"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chrome, "lines", broken)
    ran = command("export", SAMPLE, "--format", "chrome-trace", "-o", "out")
    assert ran.code == 1 and "No space left" in ran.err and list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    odd = made(
        tmp_path / "odd",
        lambda m: replace(m, baseline=None, optimized=None, variants=(replace(m.variants[0], name="../../a b"),)),
    )
    from moeprof.report.export import export

    (written,) = export.export(odd, "chrome-trace", None, tmp_path / "out", False)
    assert written.parent == tmp_path / "out" and written.name == "_.._a_b.json"
    names = ("a b", "a_b", "a/b")
    both = made(
        tmp_path / "both",
        lambda m: replace(
            m, baseline=None, optimized=None, variants=tuple(replace(m.variants[0], name=n) for n in names)
        ),
    )
    files = export.export(both, "chrome-trace", None, tmp_path / "both-out", False)
    assert [f.name for f in files] == ["a_b.json", "a_b-2.json", "a_b-3.json"] and all(f.stat().st_size for f in files)
