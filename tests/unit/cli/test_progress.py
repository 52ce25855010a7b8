"""Progress in a pipe or a log: one line a round, and what takes long is named."""

from __future__ import annotations

import time

import pytest

from moeprof.cli import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed, without the seconds."""
    return [line.partition("s  ")[2].strip() for line in capsys.readouterr().err.splitlines()]


def test_a_round_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress.Lines()
    shown.phase("time", 6)
    for number in (1, 2):
        for variant in ("dense", "grouped", "dense (twin)"):
            shown.step(f"round {number}: {variant}")
    shown.step("dense nsys")
    shown.step("dense ncu")
    assert lines(capsys) == ["time ...", "round 1", "round 2", "dense nsys", "dense ncu"]


def test_what_takes_long_is_named_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.05)
    with progress.working("reading trace.sqlite") as changed:
        changed("analysing")
        until = time.monotonic() + 10
        printed = ""
        while not printed and time.monotonic() < until:
            time.sleep(0.01)
            printed += capsys.readouterr().err
    assert printed == "reading trace.sqlite ...\n"


def test_what_is_quick_is_not_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.2)
    with progress.working("reading trace.sqlite"):
        pass
    time.sleep(0.4)
    assert capsys.readouterr().err == ""
