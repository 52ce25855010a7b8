"""Files and folders that are whole or not there, one process at a time, and caches that are never an error."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from moeprof.storage import cache, files


def test_a_folder_takes_its_name_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "new" / "kept"
    for text in ("first", "second"):
        with files.whole_folder(target) as partial:
            assert not list(partial.iterdir()) and partial != target
            (partial / "data").write_text(text)
        assert (target / "data").read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["kept"]


def test_a_block_that_fails_leaves_the_earlier_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "data").write_text("first")
    with pytest.raises(RuntimeError), files.whole_folder(tmp_path / "kept") as partial:
        (partial / "data").write_text("second")
        raise RuntimeError("half way")
    assert (tmp_path / "kept" / "data").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_an_interrupted_replacement_left_is_removed(tmp_path: Path) -> None:
    for name in ("new", "kept", "kept.old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text(name)
    assert files.replace_folder(tmp_path / "new", tmp_path / "kept") == tmp_path / "kept"
    assert (tmp_path / "kept" / "data").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_lock_excludes_another_open_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path) as file:
        file.write(b"line\n")
        with path.open("ab") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_bytes() == b"line\n"


def test_a_cached_value_is_read_again_and_a_damaged_one_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = cache.digest("NVIDIA H200", "570.1")
    assert cache.read("kind", name) is None
    cache.write("kind", name, {"values": [1.5]})
    assert cache.read("kind", name) == {"values": [1.5]} and cache.read("other", name) is None
    (path,) = (tmp_path / "moeprof" / "kind").iterdir()
    for damaged in (b"{", b"\xff\xfe"):
        path.write_bytes(damaged)
        assert cache.read("kind", name) is None
    assert cache.digest("a", "bc") != cache.digest("ab", "c")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.write("kind", "name", 1)
    assert cache.read("kind", "name") is None
