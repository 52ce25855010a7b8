"""The documents are true: the README's workload runs, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from moeprof.cli.main import cli
from moeprof.storage import manifest

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_workload_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "mine.py").write_text(block)
    command = [
        sys.executable,
        "-P",
        "-m",
        "moeprof",
        "capture",
        "./mine.py",
        "--device",
        "cpu",
        "--rounds",
        "2",
        "-o",
        "cap",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = manifest.read(tmp_path / "cap")
    assert [(v.name, v.status, len(v.parts)) for v in found.variants] == [("double", "ok", 1), ("single", "ok", 1)]
    shown = subprocess.run(
        [*command[:4], "report", "--diff", "cap"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere_and_commands_exist(document: Path) -> None:
    written = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", written):
        assert target.startswith("https://") or (document.parent / target).exists(), target
    for command in re.findall(r"(?:`|^    )moeprof ([a-z]+)", written, flags=re.M):
        assert command in cli.commands, command


def test_results_say_when_where_and_how() -> None:
    written = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for section in re.split(r"\n## ", written)[1:]:
        assert re.search(r"20\d\d-\d\d-\d\d", section) and "Command" in section and "Expected" in section, section[:60]
