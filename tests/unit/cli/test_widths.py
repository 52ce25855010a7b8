"""Every text of the terminal at 80, 100 and 120 columns: each line fits, and no number or word is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, Ran
from recorded import recordings

from moeprof.errors import ExitCode
from moeprof.machine import doctor
from moeprof.machine.doctor import Check
from moeprof.machine.tools import PERMISSION_HINT
from moeprof.report import text
from moeprof.report.page import Page, Section, Table
from moeprof.report.text_layout import LEFT_OUT, shortened, table_lines, wrap

WIDE = 600
WIDTHS = (80, 100, 120)
ALONE = re.compile(
    r"\s*(?:\S.*: +)?(?:Wrote|moeprof) \S.*|\s*\S+"
)  # a command or a path, or one word: never broken, so it may be longer
COMMANDS: dict[str, tuple[str | Path, ...]] = {
    "analyze": ("analyze", recordings.path("tiny-copies-faulty")),
    "analyze --all": ("analyze", recordings.path("tiny-copies-faulty"), "--all"),
    "analyze a capture": ("analyze", SAMPLE),
    "report a trace": ("report", recordings.path("sync-item-faulty")),
    "report a capture": ("report", SAMPLE),
    "report two traces": ("report", recordings.path("sync-item-faulty"), recordings.path("sync-item-mended")),
    "list": ("list",),
    "kernels": ("kernels", recordings.path("tiny-copies-faulty")),
    "kernels of a capture": ("kernels", SAMPLE),
    "ranks": ("ranks", SAMPLE.parent / "expert_parallel", "--variant", "overlap"),
    "check": ("check", SAMPLE, "--fail-on", "step_time>3%", "--fail-on", "launches>+0", "--fail-on", "copy_overlap<0.9"),
    "inspect": ("inspect", SAMPLE, "--kernel", "."),
    "session log": ("session", "log", "--sample", "first_investigation"),
    "history": ("history", SAMPLE, SAMPLE),
}  # fmt: skip


def words(printed: str) -> set[str]:
    """The words and numbers of a text, without the punctuation of a layout and with the dots of what was shortened."""
    return {word.strip("(),:;") for word in printed.split()} - {""}


def faults(printed: str, width: int, whole: str) -> list[str]:
    """Lines that do not fit, and words that the same text without a limit does not have."""
    known = words(whole) | words(LEFT_OUT)
    long = [
        f"{len(line)} columns: {line}"
        for line in printed.splitlines()
        if len(line) > width and not ALONE.fullmatch(line)
    ]
    parts = [word for word in words(printed) - known if not _shortened(word, known)]
    return [*long, *(f"broken: {word}" for word in parts)]


def _shortened(word: str, known: set[str]) -> bool:
    """Whether a word with an ellipsis begins or ends as a known one."""
    head, dots, tail = word.partition("…")
    return bool(dots) and any(name.startswith(head) or name.endswith(tail) for name in known)


def printed_at(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> dict[int, str]:
    """What a command prints at each width. A page is made once; what is printed besides pages is printed by the command again."""
    pages: list[Page] = []
    render = text.render
    monkeypatch.setattr(text, "render", lambda page: pages.append(page) or render(page))
    monkeypatch.setenv("COLUMNS", str(WIDE))
    ran = command(*words)
    assert ran.code in (ExitCode.OK, ExitCode.GATE) and ran.out.strip()
    printed = {WIDE: ran.out}
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        pages_alone = pages and words[0] != "session"
        printed[width] = "\n".join(map(render, pages)) if pages_alone else command(*words).out
    return printed


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_fits(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    printed = printed_at(command, monkeypatch, *COMMANDS[name])
    for width in WIDTHS:
        assert faults(printed[width], width, printed[WIDE]) == [], f"at {width} columns"


CHECKS = (
    Check("GPU", "missing", "no NVIDIA GPU or no driver; workloads run on the CPU", "on a machine with a GPU: install the driver"),
    Check("other processes", "absent", "no GPU"),
    Check("torch", "ok", "2.13.0+cpu, CPU"),
    Check("nsys", "degraded", "2025.3.2 at /opt/nvidia/nsys, but its importer lacks libdw.so.1, libelf.so.1: nsys will write a .qdstrm and no report",
          "apt install libdw1 libelf1"),
    Check("counter permission", "degraded", "the driver denies this user hardware counters (ERR_NVGPUCTRPERM)", PERMISSION_HINT),
)  # fmt: skip


def test_doctor_fits(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: CHECKS)
    printed = printed_at(command, monkeypatch, "doctor")
    for width in WIDTHS:
        assert faults(printed[width], width, printed[WIDE]) == []
    statuses = [line.split()[0] for line in printed[WIDE].splitlines() if not line.startswith(" ")]
    assert statuses == ["MISSING", "–", "OK", "DEGRADED", "DEGRADED"] and printed[WIDE].count("-> ") == 3


def test_analyze_is_one_screen_with_the_findings_after_the_ledger(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = command("analyze", recordings.path("tiny-copies-faulty")).out.splitlines()
    assert len(lines) <= 40 and lines[0].startswith("GPU 0 ")
    places = [
        next(n for n, line in enumerate(lines) if word in line)
        for word in ("Judged", "Who owned the time", "Finding", "--all", "report")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["mfu_2gpu_after", "mfu_2gpu_before", "h100_2gpu_1s", "cloverleaf_a100_2024.5"])
def test_analyze_of_a_real_trace_is_one_screen(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, traces: Path, name: str
) -> None:
    printed = printed_at(command, monkeypatch, "analyze", traces / "nsys" / f"{name}.sqlite")
    for width in WIDTHS:
        assert faults(printed[width], width, printed[WIDE]) == []
        assert width < 100 or len(printed[width].splitlines()) <= 40


def page_of(table: Table) -> Page:
    return Page("", "", (Section("planted", tables=(table,)),))


def test_a_cell_that_is_too_long_is_found_by_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    number = "1" * 130
    planted = page_of(Table("", ("what", "count"), ((f"a {number} b", "12 ms"),), detail="summary"))
    monkeypatch.setenv("COLUMNS", "120")
    assert faults(text.render(planted), 120, text.render(planted)) == []  # it has a line of its own
    assert faults(f"a {number} b", 120, number) != []
    assert faults("12", 120, "123") == ["broken: 12"] and faults("vector…wise", 80, "vector_elementwise") == []


def test_a_number_keeps_its_unit() -> None:
    for width in range(12, 40):
        lines = wrap("none of its 17.03 ms of copies is hidden, 40.5 % of 3.6 GB/s and 12 µs", width)
        assert not any(re.match(r"(ms|%|GB/s|µs)\b", line.strip()) for line in lines[1:]), (width, lines)
        assert " ".join(" ".join(lines).split()).startswith("none of its 17.03 ms")
    path = "/a/long-path/" + "x" * 50
    assert f"    {path}" in wrap(f"error: {path} does not exist", 30, "    ", "")


TABLE = Table(
    "", ("kernel", "time", "share", "calls", "why"),
    (("gemm", "12.50 ms", "40.0 %", "0", "its copies run in the stream of the kernels, so nothing is beside them"), ("add", "–", "2.0 %", "0", "")),
)  # fmt: skip


def test_the_unit_is_in_the_header_zeros_go_and_sentences_are_below_their_row() -> None:
    lines = [line.plain for line in table_lines(TABLE, 60)]
    assert lines[0].split() == ["kernel", "time,", "ms", "share,", "%"]
    assert lines[1].split() == ["gemm", "12.50", "40.0"] and lines[-1].split() == ["add", "–", "2.0"]
    assert lines[2].strip() == "its copies run in the stream of the kernels, so nothing is" and "calls" not in lines[0]


def test_a_table_that_does_not_fit_loses_optional_columns_then_becomes_blocks() -> None:
    wide = Table("", ("name", "first", "second"), (("row", "a" * 20, "b" * 20),), plain=True, optional=("second",))
    assert [line.plain for line in table_lines(wide, 60)][1] == f"row   {'a' * 20}  {'b' * 20}"
    narrow = [line.plain for line in table_lines(wide, 40)]
    assert narrow[1] == f"row   {'a' * 20}" and narrow[2].startswith("second: ")
    blocks = [line.plain for line in table_lines(Table("", wide.header, wide.rows, plain=True), 40)]
    assert blocks == ["row", f"  first: {'a' * 20}", f"  second: {'b' * 20}"]


def test_names_are_shortened_in_the_middle_and_stay_apart() -> None:
    assert shortened("nvjet_tst_192x192_64x4", 12) == "nvjet_t…64x4" and shortened("short", 12) == "short"
    assert shortened("vectorized…elementwise", 16) == "vectorized…twise", "one ellipsis for both"
    rows = tuple((f"{'k' * 60}_{n}", "1.0 ms") for n in range(3))
    names = [line.plain.split()[0] for line in table_lines(Table("", ("kernel", "time"), rows), 40)]
    names = names[-3:]
    assert len(set(names)) == 3 and all(name.endswith(str(n)) for n, name in enumerate(names))


def test_a_terminal_does_not_obey_a_name() -> None:
    hostile = Table("", ("kernel", "time"), (("a\x1b[31m\x07red\nline", "1.0 ms"),))
    printed = "\n".join(line.plain for line in table_lines(hostile, 60))
    assert "\x1b" not in printed and "\x07" not in printed and "red line" in printed


def test_a_pipe_without_columns_has_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert text.width() == text.PIPE_WIDTH == 100
    for columns, width in (("132", 132), ("10", text.LEAST_WIDTH), ("x", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        assert text.width() == width
