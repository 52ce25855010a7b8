"""``moeprof report`` of one trace, the errors of its arguments, and what ``moeprof capture`` says comes next."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, Ran
from recorded import recordings

from moeprof import capture
from moeprof.capture.run import Result
from moeprof.errors import ExitCode
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Environment, Manifest, Part, VariantRecord


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
        (("A", "A", "A", "--diff"), "a page shows one thing or contrasts two, found 3"),
        (("A", "CAPTURE"), "are a capture and a trace hint: name two of a kind"),
        (("CAPTURE", "--range", "step"), "--range is for two traces"),
        (("CAPTURE", "--sample", "router"), "name one of them"),
        (("nothing.sqlite",), "nothing.sqlite does not exist"),
        (("nothing",), "nothing does not exist"),
        (("NEAR",), "hint: did you mean 'kv_transfer'?"),
    ],
)
def test_an_error_names_the_command_that_works(
    command: Callable[..., Ran], words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    places = {"A": recordings.path("sync-item-faulty"), "CAPTURE": SAMPLE, "NEAR": SAMPLE.parent / "kv_transfr"}
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
    ("words", "following"), [(("--", "python", "p.py"), "report 'my cap'"), (("router",), "report 'my cap'")]
)
def test_what_comes_next_fits_the_capture(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], following: str
) -> None:
    (tmp_path / "my cap").mkdir()
    monkeypatch.setattr(capture, "capture", lambda *_: Result(Path("my cap"), ExitCode.OK, ""))
    ran = command("capture", *words)
    assert ran.out == "Wrote my cap\n" and ran.err == f"Next: moeprof {following}\n"


def test_an_unfinished_capture_has_no_page(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = Result(Path("cap.partial"), ExitCode.TOOL, "error: ncu failed; saved in cap.partial")
    (tmp_path / "cap.partial").mkdir()
    monkeypatch.setattr(capture, "capture", lambda *_: result)
    ran = command("capture", "router")
    assert ran.out == "" and ran.err == f"{result.message}\n" and ran.code == ExitCode.TOOL


def test_two_things_are_contrasted_with_and_without_diff(command: Callable[..., Ran], tmp_path: Path) -> None:
    traces = (recordings.path("sync-item-faulty"), recordings.path("sync-item-mended"))
    (plain, *_), (named, *_) = (command("report", *words).out.splitlines() for words in (traces, ("--diff", *traces)))
    assert plain == named and (tmp_path / "moeprof-out" / "sync-item-faulty-vs-sync-item-mended-diff.html").is_file()
    alone, contrast = command("report", SAMPLE).out, command("report", "--diff", SAMPLE).out
    assert alone.splitlines()[:-1] == contrast.splitlines()[:-1] and alone.startswith("FASTER  graph is 1.68 times")


def test_a_capture_that_kept_nothing_names_no_folder(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(Path("gone"), ExitCode.TOOL, "error: nsys failed; nothing could be kept")
    monkeypatch.setattr(capture, "capture", lambda *_: result)
    ran = command("capture", "--", "python", "p.py")
    assert ran.out == "" and ran.err == f"{result.message}\n" and ran.code == ExitCode.TOOL


def of_program(folder: Path, recording: str, *words: str) -> Path:
    """A capture of a user's program, whose trace is a recording."""
    source = recordings.path(recording)
    part = Part("trace", "nsys", "program/trace.sqlite", ("nsys",), 0, "", 0)
    machine = Environment("0", "3", "Linux", "cpu", 8)
    argv = ("moeprof", "capture", "--", *words)
    record = VariantRecord("program", "", "ok", parts=(part,))
    (folder / "program").mkdir(parents=True)
    shutil.copyfile(source, folder / part.file)
    described = Manifest(1, "program", "train", "", argv, "cuda", machine, complete=True, variants=(record,))
    (folder / "manifest.json").write_text(dumps(described), encoding="utf-8")
    return folder


def test_two_captures_of_programs_are_compared_per_step(command: Callable[..., Ran], tmp_path: Path) -> None:
    before = of_program(tmp_path / "eager", "sync-item-faulty", "python", "train.py", "--slow")
    after = of_program(tmp_path / "fast", "sync-item-mended", "python", "train.py", "--fast")
    ran = command("report", before, after)
    assert ran.code == 0, ran.err
    assert "differ in command: python train.py --slow and python train.py --fast" in ran.words
    assert re.search(r"step: B takes \d+ % less time than A", ran.words)
    data = json.loads(command("report", before, after, "--json").out)["diff"]
    assert (data["before"], data["after"], data["devices"][0]["unit"]) == ("eager", "fast", "step")
    named = json.loads(command("report", before, after, "--units", "A=10,B=20", "--json").out)["diff"]["devices"][0]
    assert (named["source"], named["units_before"], named["units_after"]) == ("counted", 10, 20)


def test_a_program_without_a_trace_is_not_compared(command: Callable[..., Ran], tmp_path: Path) -> None:
    before = of_program(tmp_path / "a", "sync-item-faulty", "x")
    after = of_program(tmp_path / "b", "sync-item-mended", "x")
    text = (after / "manifest.json").read_text(encoding="utf-8")
    found = json.loads(text)
    found["variants"][0]["parts"] = []
    (after / "manifest.json").write_text(json.dumps(found), encoding="utf-8")
    ran = command("report", before, after)
    assert ran.code == ExitCode.FAILED and "b contains no trace" in ran.words
