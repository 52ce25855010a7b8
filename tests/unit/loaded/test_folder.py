"""A folder of traces as one table: the same numbers as one by one, failures told, runs that go on."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from builders import trace_folder
from builders.sample_captures import Ran, made, variant
from builders.trace_folder import FILES
from recorded import recordings

import moeprof
from moeprof.analysis.model import Ledger
from moeprof.loaded import folder as spreading
from moeprof.loaded import trace, trace_row
from moeprof.loaded.trace_row import TraceRow, TraceTask
from moeprof.report import text, traces_table
from moeprof.storage import manifest
from moeprof.trace import discover

Run = Callable[..., Ran]
CAPTURED = ("baseline", "overlap", "graph")

folder = trace_folder.folder


def table(ran: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_rows_hold_what_analyze_says_of_each(command: Run, folder: Path) -> None:
    ran = command("analyze", folder, "--json")
    found = table(ran)
    named = [(row["file"], row["variant"]) for row in found["rows"]]
    cap = [(f"cap/{name}/trace.sqlite", name) for name in CAPTURED]
    assert named == [("broken.sqlite", None), (FILES[0], None), *cap, *((name, None) for name in FILES[1:])]
    assert (found["traces"], found["failed"], found["folder"], found["kind"]) == (7, 1, "all", "table")
    for row in found["rows"][1:]:
        (single,) = trace.analyse(folder / row["file"]).values()
        (window,) = single.windows
        assert {f.name: row[f.name] for f in fields(Ledger)} == vars(window.ledger)
        assert (row["device"], row["span_ns"], row["kernels"]) == (window.device, window.span_ns, window.launch.kernels)
        assert row["copy_bytes"] == sum(c.bytes for c in window.copies)
        assert row["sync_calls"] == window.launch.sync_calls
        assert row["findings"] == [f.id for f in single.findings][:3] and row["producer"] == single.source.producer
        assert row["notes"] == [n.text for n in single.notes if n.severity != "info"] and row["error"] is None
    assert any(row["findings"] for row in found["rows"]) and any(row["sync_calls"] for row in found["rows"])


def test_a_failed_trace_is_told_and_the_rest_goes_on(command: Run, folder: Path) -> None:
    ran = command("analyze", folder)
    assert ran.code == 0 and "all: 7 traces, 1 failed" in ran.out
    assert f"FAILED broken.sqlite: {folder / 'broken.sqlite'} is no trace that moeprof reads" in ran.words
    assert all(name in ran.out for name in (*FILES, *CAPTURED))
    lines = ran.err.splitlines()
    assert lines[1] == "2 of 7: peer.sqlite" and len(lines) == 8
    assert lines[-1] == "note: 1 of 7 traces have no numbers; the table reports why"


def test_a_bar_stands_for_the_lines_on_a_terminal(command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.cli import progress as module

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(module.sys, "stderr", terminal)
        with module.counted("traces") as done:
            for number in range(3):
                done(number + 1, 3, "name")
    shown = terminal.getvalue()
    assert "traces" in shown and "done" in shown and "3 of 3" not in shown


def test_an_error_that_nobody_foresaw_is_a_row_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(unit: TraceTask) -> tuple[TraceRow, ...]:
        raise KeyError("stream")

    monkeypatch.setattr(trace_row, "_analysed", fails)
    rows = spreading.analyse_folder(folder).rows
    assert {row.error for row in rows if row.file != "broken.sqlite"} == {"KeyError: 'stream'"}


def test_each_gpu_has_a_row_with_its_own_numbers(traces: Path, tmp_path: Path) -> None:
    shutil.copy(traces / "nsys" / "mfu_2gpu_before.sqlite", tmp_path)
    shutil.copy(traces / "kineto" / "hta_diff_test.json.gz", tmp_path)
    one, *two = spreading.analyse_folder(tmp_path).rows
    assert [row.device for row in two] == [0, 1] and len({row.compute_ns for row in two}) == 2
    whole = trace.analyse(tmp_path / "mfu_2gpu_before.sqlite")["mfu_2gpu_before.sqlite"]
    for row, window in zip(two, whole.windows, strict=True):
        assert row.span_ns == window.span_ns and row.idle_ns == window.ledger.idle_ns
        (alone,) = trace.analyse(tmp_path / row.file, device=row.device).values()
        assert row.findings == tuple(f.id for f in alone.findings)[:3]
    (window,) = trace.analyse(tmp_path / one.file)[one.file].windows
    assert one.comm_busy_ns == window.comm_busy_ns and one.hidden_comm_ns == sum(
        c.hidden_ns for c in window.communication if c.name != "peer copy"
    )
    assert 0 < (one.hidden_comm_ns or 0) < one.comm_busy_ns


def test_what_counts_as_a_trace(folder: Path) -> None:
    for name in (".old", "cap-002.partial"):
        shutil.copytree(folder / "sub", folder / name)
    (folder / "sub" / "tiny.nsys-rep").write_text("its export lies beside it")
    (folder / "sub" / "alone.nsys-rep").write_text("a report")
    (folder / "sub" / "settings.json").write_text('{"a": 1}')
    (folder / "sub" / "profile.json").write_text('{"schemaVersion": 1, "traceEvents": []}')
    (folder / "cap" / "logs").mkdir(exist_ok=True)
    shutil.copy(folder / FILES[1], folder / "cap" / "logs")
    (folder / "notes.txt").write_text("not a trace")
    found = [f.label for f in discover.below(folder)]
    expected = ["broken.sqlite", FILES[0], *(f"cap/{name}/trace.sqlite" for name in CAPTURED)]
    assert found == [*expected, "sub/alone.nsys-rep", "sub/profile.json", *FILES[1:]]


def test_captures_say_why_a_variant_has_no_trace(command: Run, tmp_path: Path) -> None:
    skipped = variant("graph", lambda v: replace(v, status="skipped", reason="no graph here", parts=()))
    made(tmp_path / "all" / "good", skipped)
    bad = made(tmp_path / "all" / "bad", light=True)
    (bad / manifest.FILE).write_text("{")
    rows = table(command("analyze", "all", "--json"))["rows"]
    assert [(row["file"], row["variant"]) for row in rows if row["error"]] == [
        ("bad/manifest.json", None),
        ("good/manifest.json", "graph"),
    ]
    assert "is not valid JSON" in rows[0]["error"]
    assert rows[-1]["error"] == "the capture holds no trace of this variant (skipped: no graph here)"
    assert [row["variant"] for row in rows if not row["error"]] == ["baseline", "overlap"]


def test_no_gpu_work_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.json.gz").write_bytes(gzip.compress(b'{"schemaVersion": 1, "traceEvents": []}'))
    (row,) = spreading.analyse_folder(tmp_path).rows
    assert row.error is not None and row.span_ns is None


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of traces that are analysed, not remembered."""
    labels: list[str] = []
    real = trace_row._analysed

    def seen(unit: TraceTask) -> tuple[TraceRow, ...]:
        labels.append(unit.trace.label)
        return real(unit)

    monkeypatch.setattr(trace_row, "_analysed", seen)
    return labels


def test_what_was_done_is_not_done_again(command: Run, folder: Path, read: list[str]) -> None:
    first = command("analyze", folder, "--json")
    assert len(read) == 7
    read.clear()
    assert command("analyze", folder, "--json").out == first.out and read == ["broken.sqlite"]
    read.clear()
    shutil.copy(recordings.path("peer"), folder / "broken.sqlite")  # mended, and of a content that is known
    shutil.copy(recordings.path("tiny-copies-faulty"), folder / FILES[1])
    again = table(command("analyze", folder, "--json"))
    assert read == [FILES[1]] and again["failed"] == 0
    rows = {row["file"]: row for row in again["rows"]}
    assert rows["broken.sqlite"] == {**rows[FILES[0]], "file": "broken.sqlite"}
    assert rows[FILES[1]]["kernels"] != 0 and rows[FILES[1]] not in table(first)["rows"]
    assert not list((folder / spreading.RESULTS).glob("*.partial"))


def test_results_are_of_this_moeprof_and_these_classes(
    folder: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spreading.analyse_folder(folder, results=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 6 and not (folder / spreading.RESULTS).exists()
    classes = tmp_path / "mine.toml"
    classes.write_text('[communication]\nmine = "."\n')
    for change in ("classes", "damage", "version"):
        read.clear()
        if change == "damage":
            for file in (tmp_path / "kept").iterdir():
                file.write_text(file.read_text()[:-20])
        if change == "version":
            monkeypatch.setattr(moeprof, "__version__", "99")
        found = spreading.analyse_folder(folder, results=tmp_path / "kept", classes=classes)
        assert len(read) == 7 and found.failed == 1, change
        assert not any(row.compute_ns for row in found.rows) and any(row.comm_busy_ns for row in found.rows)


def test_an_interrupted_run_goes_on(
    command: Run, folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = trace_row._analysed

    def interrupted(unit: TraceTask) -> tuple[TraceRow, ...]:
        if unit.trace.variant == "overlap":
            raise KeyboardInterrupt
        return seen(unit)

    with monkeypatch.context() as patched:
        patched.setattr(trace_row, "_analysed", interrupted)
        ran = command("analyze", folder, "--json")
    assert (
        ran.code == 130 and "interrupted; 3 of 7 traces are done" in ran.words and ran.words.count(".moeprof-analysis")
    )
    assert read == ["broken.sqlite", FILES[0], "cap/baseline/trace.sqlite"]
    read.clear()
    assert command("analyze", folder, "--json").code == 0
    assert read == ["broken.sqlite", *(f"cap/{name}/trace.sqlite" for name in CAPTURED[1:]), *FILES[1:]]


def test_where_every_trace_fails_the_exit_code_is_1(command: Run, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "broken.sqlite").write_text("no database")
    ran = command("analyze", "all", "--json")
    assert ran.code == 1 and table(ran)["failed"] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none",), 1, "none is not a capture and holds none, nor a trace"),
        (("all", "--range", "iteration"), 2, "--range, --device and --rules are for one trace or capture"),
        (("all", "--device", "0"), 2, "are for one trace or capture"),
        (("all/peer.sqlite", "--dask"), 2, "all/peer.sqlite is not a folder"),
        (("all/peer.sqlite", "--results", "kept"), 2, "all/peer.sqlite is not a folder"),
        (("all", "--results", "all/peer.sqlite/kept"), 1, "results cannot be kept in"),
        (("all", "--communication", "nowhere.toml"), 2, "nowhere.toml"),
        (("all", "--dask", "nonsense://x"), 4, "no Dask scheduler answers at nonsense://x"),
        (("all", "--dask", "tcp://127.0.0.1:1"), 4, "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be(
    command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    if "--dask" in words and len(words) == 3:
        pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(spreading, "CONNECT_S", 0.5)
    (folder.parent / "none").mkdir()
    ran = command("analyze", *words)
    assert ran.code == code and said in ran.words and "Traceback" not in ran.err and ran.out == ""
    assert not list((folder.parent / "none").iterdir())


def test_a_long_table_shows_the_idlest_and_says_so() -> None:
    numbers = {"exposed_comm_ns": 0, "exposed_copy_ns": 0, "compute_ns": 0, "kernels": 1}
    good = [TraceRow(f"t{n:02d}", span_ns=100, idle_ns=n, **numbers) for n in range(50)]
    errors = [TraceRow(f"e{n:02d}", error="broken") for n in range(14)]
    shown = text.render(traces_table.page("all", [*good, *errors], 64))
    assert "t49" in shown and "t10" in shown and "t09" not in shown and "the 40 of 50 rows that are idle most" in shown
    assert "all: 64 traces, 14 failed" in shown and "e11" in shown and "e12" not in shown and "2 more failures" in shown
    few = [replace(good[0], comm_busy_ns=40, hidden_comm_ns=10), replace(good[1], comm_busy_ns=0, hidden_comm_ns=0)]
    lines = text.render(traces_table.page("all", few, 2)).splitlines()
    assert "comm hidden, %" in " ".join(" ".join(lines[-5:-2]).split()) or "hidden, %" in lines[-3]
    assert "25.0" in lines[-2] and "25.0" not in lines[-1] and "–" in lines[-1]
