"""The demo: without a GPU it says what was recorded, and each of its commands is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import demo
import pytest

from moeprof import resources
from moeprof.cli.main import cli


@pytest.mark.parametrize("way", [demo.without_gpu, demo.with_gpu])
def test_the_commands_of_the_demo_exist(
    way: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(demo, "moeprof", lambda *words, answer=False: commands.append(list(map(str, words))))
    way()
    for name, *words in commands:
        cli.commands[name].make_context(name, list(words))  # raises for an option or a value that does not exist
    assert {"capture", "report"} <= {name for name, *_ in commands}
    printed = capsys.readouterr().out
    for line in printed.splitlines():
        if line.strip().startswith("moeprof "):
            assert line.split()[1] in cli.commands, line


def test_without_a_gpu_what_was_recorded_is_called_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "moeprof", lambda *words, answer=False: None)
    demo.without_gpu()
    printed = " ".join(capsys.readouterr().out.split())
    assert "Recorded on one NVIDIA H200 on 2026-11-24, shown here without a GPU" in printed
    assert "on this CPU" in printed and printed.count("NVIDIA H200") == 2
    assert demo.RECORDED in resources.names("samples") and demo.TRACE in resources.trace_names()


def test_a_command_that_fails_ends_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(demo.subprocess.CalledProcessError):
        demo.moeprof("report", "nothing.sqlite", answer=True)
