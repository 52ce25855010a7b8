"""Named baselines: kept whole or not at all, two processes in turns, and what cannot be."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, Ran, made
from paths import ROOT

from moeprof.errors import CaptureError, UsageError
from moeprof.storage import baselines, manifest
from moeprof.storage.capture_folder import sha256

Run = Callable[..., Ran]


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_baseline_is_the_whole_capture(command: Run, tmp_path: Path) -> None:
    assert command("baseline", "save", "main", SAMPLE).out == "Wrote moeprof-baselines/main\n"
    assert files(tmp_path / "moeprof-baselines" / "main") == files(SAMPLE)
    (found,) = baselines.listed()
    assert (found.name, found.workload, found.gpu, found.default) == ("main", "kv_transfer", "NVIDIA H200", False)
    assert found.variants == ("baseline", "overlap", "graph") and found.saved is not None and found.bytes > 1_000_000
    assert command("report", "--diff", "moeprof-baselines/main", SAMPLE).code == 0  # it is a capture like any other


def test_save_list_use_remove(command: Run, tmp_path: Path) -> None:
    assert "moeprof baseline save" in command("baseline", "list").out
    old = made(tmp_path / "old", lambda m: replace(m, created="2026-01-01", git="abc"), light=True)
    new = made(tmp_path / "new", lambda m: replace(m, created="2026-02-01"), light=True)
    assert [command("baseline", "save", name, path).code for name, path in (("b", new), ("a", old))] == [0, 0]
    assert command("baseline", "use", "a").out == "Default: a\n"
    said = json.loads(command("baseline", "list", "--json").out)
    assert [(b["name"], b["git"], b["default"]) for b in said["baselines"]] == [("a", "abc", True), ("b", None, False)]
    assert "a *" in command("baseline", "list").out
    assert command("baseline", "remove", "a").out == "Removed a\n" and baselines.default() is None
    command("baseline", "use", "b")
    assert command("baseline", "use", "--none").out == "No default\n" and baselines.default() is None
    assert [p.name for p in Path("moeprof-baselines").iterdir() if p.is_dir()] == ["b"]
    made(Path("moeprof-baselines") / "c.77.partial", light=True)  # of a process that was killed
    assert [b.name for b in baselines.listed()] == ["b"]


def test_a_name_is_replaced_only_with_force(command: Run, tmp_path: Path) -> None:
    one, two = (made(tmp_path / n, lambda m, n=n: replace(m, git=n), light=True) for n in ("one", "two"))
    command("baseline", "save", "main", one)
    refused = command("baseline", "save", "main", two)
    assert refused.code == 2 and "--force" in refused.err and baselines.listed()[0].git == "one"
    assert command("baseline", "save", "main", two, "--force").code == 0 and baselines.listed()[0].git == "two"
    assert not list(Path("moeprof-baselines").glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("save", "../up", "cap"), 2, "not a valid name"), (("save", ".x", "cap"), 2, "not a valid name"), (("save", "a.partial", "cap"), 2, "not a valid name"),
        (("save", "a", "gone"), 1, "not a capture"), (("save", "a", "half"), 1, "not complete"), (("use", "a"), 1, "no baseline 'a'"),
        (("remove", "../cap"), 1, "no baseline"), (("use",), 2, "give a name"), (("use", "a", "--none"), 2, "give a name"),
    ],
)  # fmt: skip
def test_what_cannot_be(command: Run, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    made(tmp_path / "cap", light=True)
    made(tmp_path / "half", lambda m: replace(m, complete=False), light=True)
    ran = command("baseline", *words)
    assert ran.code == code and said in ran.err and (tmp_path / "cap" / manifest.FILE).is_file()
    assert baselines.listed() == ()


def test_a_copy_that_fails_leaves_what_was_there(command: Run, tmp_path: Path) -> None:
    one = made(tmp_path / "one", light=True)
    command("baseline", "save", "main", one)
    before = files(Path("moeprof-baselines"))
    two = made(tmp_path / "two", light=True)
    (two / "link").symlink_to("nowhere")  # a file that cannot be copied
    assert command("baseline", "save", "main", two, "--force").code == 1
    assert files(Path("moeprof-baselines")) == before


def test_a_name_goes_before_a_path_and_what_is_neither_is_named(command: Run, tmp_path: Path) -> None:
    one = made(tmp_path / "one", light=True)
    command("baseline", "save", "main", one)
    assert baselines.resolve("main") == (Path("moeprof-baselines/main"), "baseline main")
    assert baselines.resolve("one") == (Path("one"), "one")
    with pytest.raises(CaptureError, match="neither") as caught:
        baselines.resolve("other")
    assert caught.value.hint == "baselines: main"
    with pytest.raises(UsageError):
        baselines.save("main", one)


def test_a_damaged_index_is_named_and_a_lost_one_loses_only_the_dates(command: Run, tmp_path: Path) -> None:
    command("baseline", "save", "main", made(tmp_path / "one", light=True))
    index = Path("moeprof-baselines") / baselines.INDEX
    index.write_text("{")
    ran = command("baseline", "list")
    assert ran.code == 1 and "index.json" in ran.err and "Traceback" not in ran.err
    index.unlink()
    assert [(b.name, b.saved) for b in baselines.listed()] == [("main", None)]


def test_a_default_that_was_deleted_by_hand_is_no_silent_other_comparison(command: Run, tmp_path: Path) -> None:
    one = made(tmp_path / "one", light=True)
    command("baseline", "save", "main", one)
    command("baseline", "use", "main")
    (Path("moeprof-baselines") / "main").rename(tmp_path / "away")
    ran = command("check", one, "--fail-on", "step_time>3%")
    assert ran.code == 1 and "main is neither" in ran.err


def test_nothing_is_renamed_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    one, kept = made(tmp_path / "one", light=True), tmp_path / "kept"
    kept.mkdir()
    code = f"from pathlib import Path; from moeprof.storage import baselines; baselines.save('main', Path({str(one)!r}), Path({str(kept)!r}))"
    with (kept / baselines.LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        while not list(kept.glob(f"main.*.partial/{manifest.FILE}")):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)  # time enough to go on, were there no lock
        assert process.poll() is None and not (kept / "main").exists()
    assert process.wait(20) == 0 and (kept / "main").exists()


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """Each saves its own names and both save one: every name is in the index, and the shared one is whole."""
    one = made(tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; from moeprof.storage import baselines\n"
        "who, capture, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])\n"
        "for i in range(6):\n"
        "    baselines.save(f'{who}-{i}', capture, folder); baselines.save('both', capture, folder, force=True)\n"
    )
    with ThreadPoolExecutor(2) as pool:
        argv = [[sys.executable, "-c", code, who, str(one), str(tmp_path / "kept")] for who in ("x", "y")]
        ran = list(pool.map(lambda a: subprocess.run(a, cwd=ROOT, capture_output=True, text=True, check=False), argv))
    assert [r.returncode for r in ran] == [0, 0], ran[0].stderr + ran[1].stderr
    found = baselines.listed(tmp_path / "kept")
    assert len(found) == 13 and all(b.saved for b in found) and files(tmp_path / "kept" / "both") == files(one)
    assert not list((tmp_path / "kept").glob("*.partial"))
