"""``moeprof report`` of one trace, the errors of its arguments, and what ``moeprof capture`` says comes next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, Ran
from recorded import recordings

from moeprof import capture
from moeprof.capture.run import Result
from moeprof.errors import ExitCode


def test_a_trace_has_a_page(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("report", recordings.path("sync-item-faulty"))
    assert ran.code == 0 and "Wrote moeprof-out/sync-item-faulty.html" in ran.out
    assert ran.out.startswith("GPU 0 is idle 38.9 % of the time: the host waits for the GPU")
    assert "<title>GPU 0 is idle 38.9 %" in (tmp_path / "moeprof-out" / "sync-item-faulty.html").read_text("utf-8")
    data = json.loads(command("report", recordings.path("sync-item-faulty"), "--json").out)
    assert data["diff"]["findings"][0]["id"] == "sync-api"


def test_a_named_page_is_not_overwritten(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine", encoding="utf-8")
    ran = command("report", recordings.path("sync-item-mended"), "-o", "mine.html")
    assert ran.code == ExitCode.USAGE and "add --force" in ran.words
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == "mine"
    assert command("report", recordings.path("sync-item-mended"), "-o", "mine.html", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("A", "--diff"), "name a second one"),
        (("A", "--range", "step"), "moeprof analyze TRACE --range NAME"),
        (("A", "--whole"), "are for two traces or two captures of programs"),
        (("CAPTURE", "--unit", "step"), "that of commands is given to capture"),
        (("A", "A", "A", "--diff"), "3 traces were named"),
        (("CAPTURE", "--range", "step"), "--range is for two traces"),
        (("nothing.sqlite",), "there is no trace at nothing.sqlite"),
    ],
)
def test_an_error_names_the_command_that_works(
    command: Callable[..., Ran], words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    places = {"A": recordings.path("sync-item-faulty"), "CAPTURE": SAMPLE}
    ran = command("report", *(places.get(word, word) for word in words))
    assert ran.code != 0 and says in ran.words
    assert not (tmp_path / "moeprof-out").exists()


def test_two_traces_are_contrasted_without_being_asked(command: Callable[..., Ran], tmp_path: Path) -> None:
    pair = [recordings.path(f"sync-item-{form}") for form in ("faulty", "mended")]
    pages = []
    for number, words in enumerate(((), ("--diff",))):
        ran = command("report", *pair, *words, "-o", f"{number}.html")
        assert ran.code == 0 and "step" in ran.out
        pages.append((tmp_path / f"{number}.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("words", "following"), [(("--", "python", "p.py"), "report 'my cap'"), (("router",), "report --diff 'my cap'")]
)
def test_what_comes_next_fits_the_capture(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], following: str
) -> None:
    (tmp_path / "my cap").mkdir()
    monkeypatch.setattr(capture, "capture", lambda *_: Result(Path("my cap"), ExitCode.OK, ""))
    ran = command("capture", *words)
    assert ran.out == "Wrote my cap\n" and ran.err == f"Next: moeprof {following}\n"


def test_a_capture_that_kept_nothing_names_no_folder(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(Path("gone"), ExitCode.TOOL, "error: nsys failed; nothing could be kept")
    monkeypatch.setattr(capture, "capture", lambda *_: result)
    ran = command("capture", "--", "python", "p.py")
    assert ran.out == "" and ran.err == f"{result.message}\n" and ran.code == ExitCode.TOOL
