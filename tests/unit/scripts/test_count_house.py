"""The counts of the house: circles, rooms and arrows of a small one, and the limits that this one keeps."""

from __future__ import annotations

import re
from pathlib import Path

import count_house
import pytest

FILES = {
    "__init__.py": "", "units.py": "", "a/__init__.py": "", "a/one.py": "from moeprof import units\nfrom moeprof.b import two\n",
    "b/__init__.py": "", "b/three.py": "import pathlib\n",
}  # fmt: skip


def counted(folder: Path, two: str) -> tuple[list[set[str]], set[str], set[tuple[str, str]]]:
    for name, text in (FILES | {"b/two.py": two}).items():
        file = folder / "moeprof" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    files = count_house.modules(folder)
    graph = count_house.imports(files)
    return count_house.circles(graph), *count_house.rooms(files, graph)


@pytest.mark.parametrize(
    "back",
    [
        "import moeprof.a.one\n",
        "from moeprof.a.one import x\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from moeprof.a import one\n",
        "def late():\n    from moeprof.a import one\n",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(tmp_path: Path, back: str) -> None:
    circles, rooms, arrows = counted(tmp_path, back)
    assert circles == [{"moeprof.a.one", "moeprof.b.two"}]
    assert rooms == {"moeprof.a", "moeprof.b"} and arrows == {("moeprof.a", "moeprof.b"), ("moeprof.b", "moeprof.a")}


def test_imports_in_one_direction_are_no_circle(tmp_path: Path) -> None:
    circles, _, arrows = counted(tmp_path, "from moeprof.b import three\n")
    assert circles == [] and arrows == {("moeprof.a", "moeprof.b")}


def test_this_house_keeps_its_limits_and_the_document_has_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    count_house.main(count_house.ROOT)
    counts = {
        name: int(n.replace(",", "")) for name, n in re.findall(r"^(.+): ([\d,]+)$", capsys.readouterr().out, re.M)
    }
    assert counts["files in the root"] <= 8 and counts["packages in the root"] <= 20 and counts["circles"] == 0
    text = (count_house.ROOT / "docs" / "explanation" / "redesign.md").read_text()
    for row, name in (
        ("files in the root of `moeprof/`", "files in the root"),
        ("packages in the root of `moeprof/`", "packages in the root"),
        ("rows of the contract of layers", "rows of the contract of layers"),
        ("circles between modules", "circles"),
    ):
        (after,) = re.findall(rf"^\| {re.escape(row)}[^|]*\|[^|]*\| (\d+)", text, re.M)
        assert int(after) == counts[name], row
