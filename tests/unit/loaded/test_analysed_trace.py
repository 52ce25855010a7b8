"""Two traces of one file name get names that tell them apart."""

from __future__ import annotations

import shutil
from pathlib import Path

from builders.nsys_export import make_export

from moeprof.loaded.analysed_trace import load_pair


def test_equal_file_names_get_the_folders_that_differ(tmp_path: Path) -> None:
    made = tmp_path / "one.sqlite"
    make_export(made)
    paths = [tmp_path / side / "program" / "trace.sqlite" for side in ("eager", "fast")]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(made, path)
    assert [side.name for side in load_pair(*paths)] == ["eager/program/trace.sqlite", "fast/program/trace.sqlite"]
    assert [side.name for side in load_pair(paths[0], made)] == ["trace.sqlite", "one.sqlite"]
    assert [side.name for side in load_pair(made, made)] == ["one.sqlite", "one.sqlite"]
