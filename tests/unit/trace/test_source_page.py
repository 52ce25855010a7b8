"""ncu's source page in both of its views, whatever the columns: instructions, lines, their samples and what they wait for."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.ncu_pages import COLUMNS, GEMM, GEMM_SASS, lines_page, sass_page, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeprof.capture import redact
from moeprof.errors import TraceError
from moeprof.kernels.hot_lines import executed, hot_sass, hot_source
from moeprof.trace.ncu.pages import read_pages
from moeprof.trace.ncu.source import is_source, read_source


def written(path: Path, page: str) -> Path:
    path.write_text(page)
    return path


def test_instructions_of_all_launches_add_up_and_the_hottest_is_first(tmp_path: Path) -> None:
    page = written(tmp_path / "s.csv", "==PROF== hello\n" + sass_page(launches=3))
    assert is_source(page)
    frame = read_source(page)
    assert frame["block"].nunique() == 3 and set(frame["kernel"]) == {GEMM} and (frame["line"] == -1).all()
    first, second, third = hot_sass(frame, GEMM, 10)
    assert (first.place, first.samples, first.stall) == ("+0x0010", 360, "math_pipe_throttle")
    assert first.share == pytest.approx(120 / 200) and first.stall_share == pytest.approx(0.75)
    assert (second.place, second.stall, third.place, third.stall) == (
        "+0x0020",
        "barrier",
        "+0x0000",
        "long_scoreboard",
    )
    assert len(hot_sass(frame, GEMM, 1)) == 1
    assert executed(frame, GEMM) == [(instruction, count) for _, instruction, _, count, _ in GEMM_SASS], "of one launch"


def test_lines_have_the_samples_of_their_instructions_once(tmp_path: Path) -> None:
    frame = read_source(written(tmp_path / "s.csv", lines_page()))
    lines = hot_source(frame, GEMM, 10)
    assert [(hot.place, hot.samples, hot.text) for hot in lines] == [
        ("gemm.cu:57", 197, "mma(c, a, b);"), ("tile.cuh:7", 11, "barrier.wait();"), ("gemm.cu:41", 3, "const float *p = q;"),
    ]  # fmt: skip
    assert lines[0].stall == "math_pipe_throttle" and lines[0].stall_share == pytest.approx(90 / 197)
    assert lines[0].share == pytest.approx(197 / 211)
    assert executed(frame, GEMM) == [], "an inlined instruction may stand under several lines"
    assert [(hot.samples, hot.text) for hot in hot_sass(frame, GEMM, 2)] == [(row[2], row[1]) for row in GEMM_SASS[1:]]


def test_names_that_the_page_spells_otherwise_are_found_by_function(tmp_path: Path) -> None:
    frame = read_source(written(tmp_path / "s.csv", sass_page(1, "split_kv") + sass_page(1, "other")))
    assert hot_sass(frame, "void <unnamed>::split_kv(Work)", 1)[0].samples == 120
    assert hot_sass(frame, "third", 1) == ()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.permutations(
        ["Address", "Source", COLUMNS[0], "Instructions Executed", "stall_barrier", "stall_wait", "Unknown Column"]
    ),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=6),
)
def test_columns_are_found_by_name_in_any_order(
    tmp_path: Path, names: list[str], counts: list[tuple[int, int]]
) -> None:
    rows = [
        [{"Address": f"{16 * i:x}", "Source": f"OP{i} R{i}", COLUMNS[0]: f"{samples:,}", "Instructions Executed": "1", "stall_barrier": f"{wait:,}"}.get(name, "0") for name in names]
        for i, (samples, wait) in enumerate(counts)
    ]  # fmt: skip
    frame = read_source(written(tmp_path / "s.csv", text([("Kernel Name", "k"), names, *rows])))
    assert frame["samples"].tolist() == [samples for samples, _ in counts]
    assert frame["stall_samples"].tolist() == [wait for _, wait in counts]
    assert sum(hot.samples for hot in hot_sass(frame, "k", 99)) == sum(samples for samples, _ in counts)


def test_other_names_of_the_columns_and_a_page_without_samples(tmp_path: Path) -> None:
    head = ("#", "Address", "Source", "# Samples")
    rows = [("Kernel Name", "k"), head, ("1", "0x10", "MOV R1", "5"), ("2", "0x20", "EXIT", "")]
    frame = read_source(written(tmp_path / "a.csv", text(rows)))
    assert frame["samples"].tolist() == [5, 0] and frame["executed"].tolist() == [-1, -1]
    assert [hot.place for hot in hot_sass(frame, "k", 9)] == ["+0x0000"], "a line without samples is not hot"
    with pytest.raises(TraceError, match="no column of samples"):
        read_source(
            written(
                tmp_path / "b.csv",
                text([("Kernel Name", "k"), ("Address", "Source", "Registers"), ("10", "EXIT", "4")]),
            )
        )
    assert len(read_source(written(tmp_path / "c.csv", text([("Kernel Name", "k")])))) == 0


def test_pages_are_told_apart_in_any_order(tmp_path: Path, traces: Path) -> None:
    made = [written(tmp_path / "x.csv", lines_page()), written(tmp_path / "y.csv", sass_page(2))]
    for files in (made, made[::-1]):
        pages = read_pages([files[0], traces / "h200" / "ncu_details.csv", files[1], traces / "h200" / "ncu_raw.csv"])
        assert pages.sass is not None and pages.lines is not None and pages.rules
        assert (pages.sass["line"] < 0).all() and (pages.lines["line"] >= 0).all()
        assert pages.counters["metric"].astype(str).str.contains("__").all()
    with pytest.raises(TraceError, match="no counters in these files"):
        read_pages(made)


def test_a_redacted_page_has_file_names_without_folders(tmp_path: Path) -> None:
    source = written(tmp_path / "s.csv", "==PROF== from /home/somebody\n" + lines_page())
    redact.ncu_source(source, tmp_path / "kept.csv")
    kept = (tmp_path / "kept.csv").read_text()
    assert "/home/somebody" not in kept and "==PROF==" not in kept
    assert hot_source(read_source(tmp_path / "kept.csv"), GEMM, 9) == hot_source(read_source(source), GEMM, 9)
