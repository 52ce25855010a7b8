"""A folder of many traces: a capture, exports, and a file that is no trace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.sample_captures import made
from recorded import recordings

FILES = ("peer.sqlite", "sub/tiny.sqlite", "sub/waits.sqlite")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A capture of three variants, three exports, one file that is no trace."""
    top = tmp_path / "all"
    made(top / "cap")
    (top / "sub").mkdir()
    shutil.copy(recordings.path("peer"), top / FILES[0])
    shutil.copy(recordings.path("tiny-copies-mended"), top / FILES[1])
    shutil.copy(recordings.path("sync-item-faulty"), top / FILES[2])
    (top / "broken.sqlite").write_text("no database")
    return top
