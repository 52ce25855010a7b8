"""The tutorial "your first investigation": its commands run as they stand, its numbers are those of the recorded session."""

from __future__ import annotations

import re
from pathlib import Path

import documents
import pytest
from paths import ROOT

from moeprof import resources
from moeprof.errors import UsageError
from moeprof.gate import metrics
from moeprof.loaded import capture as study
from moeprof.session import log, steps

DOCUMENT = ROOT / "docs" / "tutorial" / "first_investigation.md"
FOLDER = resources.folder("reports") / "sessions" / "first_investigation"
STALL = "smsp__average_warps_issue_stalled_{}_scoreboard_per_issue_active.ratio"
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"


def test_the_commands_run_where_there_is_no_gpu(tmp_path: Path) -> None:
    (block,) = documents.blocks(DOCUMENT)
    said = documents.run(block, tmp_path, fresh=True)
    assert "MISSED" in said and "held" in said
    assert (tmp_path / "moeprof-out" / "first_investigation.html").stat().st_size > 100_000


def test_the_table_is_what_the_captures_hold() -> None:
    rows = [line.strip("| \n").split(" | ") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")][1:]
    table = [[float(re.sub(r"[^0-9.]", "", cell)) for cell in row[1:]] for row in rows]
    found = log.read(FOLDER)
    assert found.start.variant == "tma_pipelined" and found.base is not None
    trials = [found.base, *(step.trial for step in found.steps)]
    assert len(table) == len(trials) == 7
    for row, trial in zip(table, trials, strict=True):
        assert trial is not None
        capture = study.load(FOLDER / trial.capture)
        counted = [metrics.value(capture, "tma_pipelined", f"counter:{name}") for name in (DRAM, STALL.format("long"), STALL.format("short"))]  # fmt: skip
        expected = [trial.values["step_time"], 100 * (trial.values["of_limit"] or 0), *counted]
        assert row == pytest.approx(expected, abs=0.051), trial.capture


def test_some_predictions_missed_and_it_ended_faster() -> None:
    found = log.read(FOLDER)
    assert [step.trial.held for step in found.steps if step.trial] == [False, False, False, True, True, False]
    kept = [
        step.trial.values["step_time"] for step in found.steps if step.trial and step.decision and step.decision.kept
    ]
    assert found.base is not None and min(kept) < 0.75 * found.base.values["step_time"]


def test_a_recorded_session_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        steps.place(Path("x"), "nothing")
    assert "first_investigation" in caught.value.hint and steps.place(Path("x"), None) == Path("x")
