"""The documents are true: the README's workload runs, links and anchors lead somewhere, commands exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import documents
import pytest
from fakes.command_line import moeprof
from paths import ROOT

from moeprof.cli.main import cli
from moeprof.storage import manifest

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / f / "README.md" for f in ("cuda", "reports"))]
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_workload_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    """Proven, timed and reported; a workload of a document is traced in test_own_workload.py."""
    pytest.importorskip("torch", reason="torch is not installed")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "mine.py").write_text(block)
    here = {"PYTHONPATH": "", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    words = ("--device", "cpu", "--preset", "tiny", "--tools", "none", "--rounds", "1", "-o", "cap")
    ran = moeprof("capture", "./mine.py", *words, cwd=tmp_path, **here)
    assert ran.returncode == 0, ran.stderr
    found = manifest.read(tmp_path / "cap")
    assert [(v.name, v.status) for v in found.variants] == [("double", "ok"), ("single", "ok")]
    assert all(v.proof is not None and v.proof.ok and v.rounds for v in found.variants)
    shown = moeprof("report", "--diff", "cap", cwd=tmp_path, **here)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere_and_commands_exist(document: Path) -> None:
    assert documents.dead_links(document) == []
    for command in re.findall(r"(?:`|^    )moeprof ([a-z]+)", document.read_text(encoding="utf-8"), flags=re.M):
        assert command in cli.commands, command


def test_a_dead_link_a_dead_anchor_and_a_dead_image_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text(
        '# One `word`, two\n\n## Same\n\n## Same\n<a id="row"></a>\n```\n# not a heading\n```\n'
    )
    links = [
        "other.md",
        "other.md#one-word-two",
        "other.md#same",
        "other.md#same-1",
        "other.md#row",
        "#here",
        "https://x.org/y",
    ]
    dead = ["gone.md", "other.md#gone", "other.md#same-2", "other.md#not-a-heading", "#nowhere", "gone/"]
    document = tmp_path / "document.md"
    document.write_text("# Here\n" + "".join(f"[a]({target})\n" for target in links + dead) + "![b](gone.png)\n")
    assert documents.dead_links(document) == [*dead, "gone.png"]


def test_every_document_has_a_door() -> None:
    """Each document is linked from docs/index.md; the days of the diary are linked from its own index."""
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / target.partition("#")[0]).resolve()
        for _, target in documents.LINK.findall(documents.prose(index))
    }
    days = set((ROOT / "docs" / "lab_notes").glob("20*.md"))
    assert len(DOCUMENTS) > 25 and len(days) >= 3
    assert {path for path in (ROOT / "docs").rglob("*.md") if path not in linked | days | {index}} == set()


def test_documents_that_the_code_names_exist() -> None:
    """In docstrings, comments and messages of the code: "docs/reference/cli.md"."""
    folders = ("moeprof", "workloads", "scripts", "tests", "cuda", "reports")
    files = [
        p for name in folders for p in (ROOT / name).rglob("*") if p.suffix in (".py", ".sh", ".j2", ".cu", ".cuh")
    ]
    named = {
        (target, path)
        for path in files
        for target in re.findall(r"\bdocs/[\w/]+\.(?:md|json)\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert [
        (target, str(path)) for target, path in sorted(named) if path != Path(__file__) and not (ROOT / target).exists()
    ] == []


def test_days_of_the_diary_say_when_where_and_how() -> None:
    days = sorted((ROOT / "docs" / "lab_notes").glob("20*.md"))
    sections = [s for day in days for s in re.split(r"\n## ", day.read_text(encoding="utf-8"))[1:]]
    assert len(sections) >= 36
    for section in sections:
        assert re.search(r"20\d\d-\d\d-\d\d", section) and "Command" in section and "Expected" in section, section[:60]


def test_every_schema_is_linked() -> None:
    page = ROOT / "docs" / "reference" / "json.md"
    linked = {Path(target).name for _, target in documents.LINK.findall(documents.prose(page)) if "/schemas/" in target}
    assert linked == {path.name for path in (ROOT / "docs" / "schemas").glob("*.json")} and len(linked) >= 14
