"""What pyproject.toml installs: every package of the tree, every data file that is read at run time."""

from __future__ import annotations

import tomllib
from pathlib import Path

from paths import ROOT

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_with_python_is_installed() -> None:
    places = {"moeprof": "moeprof", "workloads": "moeprof.workloads"}
    folders = {path.parent.relative_to(ROOT) for place in places for path in (ROOT / place).rglob("*.py")}
    packages = {".".join((places[folder.parts[0]], *folder.parts[1:])) for folder in folders}
    assert packages | {"moeprof.cuda", "moeprof.reports"} == set(SETUPTOOLS["packages"])


def test_every_data_file_is_installed() -> None:
    for name, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT / SETUPTOOLS["package-dir"][name]
        installed = {path for pattern in patterns for path in folder.glob(pattern)}
        tracked = [path for path in folder.rglob("*") if path.is_file() and not skipped(path)]
        assert len(tracked) >= 4 and set(tracked) <= installed, sorted(set(tracked) - installed)


def skipped(path: Path) -> bool:
    """Whether the file is Python's or a test's own and not read at run time."""
    return path.suffix in (".pyc", ".py") or "__pycache__" in path.parts
