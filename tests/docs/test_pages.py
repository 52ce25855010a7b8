"""docs/reference/pages.md: every kind of page is shown, its pictures exist, and they are small."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import click
import pytest
import screenshots
from page_kinds import KINDS
from paths import ROOT

from moeprof import resources
from moeprof.cli.main import cli

MOST_BYTES = 3_000_000  # of all pictures together
OPTION = "output"  # of a command that can write a page
WITHOUT_HTML = {"baseline", "check", "capture", "doctor", "export", "inspect", "join", "kernels", "list", "analyze", "completion"}  # fmt: skip


def page_commands() -> set[str]:
    """The commands whose -o is a page: all that have one, but for those that write something else."""
    found = set()
    for name, command in cli.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, part in inner.items():
            if any(p.name == OPTION for p in part.params) and name not in WITHOUT_HTML:
                found.add(f"{name} {sub}".strip())
    return found


def test_every_command_that_writes_a_page_has_a_kind() -> None:
    shown = " ".join(kind.command for kind in KINDS)
    assert page_commands() >= {"report", "ranks", "history", "session report"}
    assert [name for name in page_commands() if f"moeprof {name}" not in shown] == []
    assert "--moeprof-report" in shown, "the plugin writes a page too"


def test_every_sample_and_every_function_that_renders_a_page_has_a_kind() -> None:
    shown = " ".join(kind.command for kind in KINDS)
    assert [name for name in resources.names("samples") if f"--sample {name}" not in shown] == []
    callers = {
        path.relative_to(ROOT / "moeprof").as_posix()
        for path in (ROOT / "moeprof").rglob("*.py")
        if re.search(r"\bhtml\.render\(", path.read_text(encoding="utf-8"))
    }
    assert callers == {"report/build.py", "cli/session.py", "testing/reports.py"}, "a new caller needs a kind of page"


def test_names_of_kinds_are_unique() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_the_document_is_up_to_date_and_its_pictures_exist() -> None:
    text = (ROOT / "docs" / "reference" / "pages.md").read_text(encoding="utf-8")
    assert text == screenshots.document(), "python scripts/screenshots.py --docs OUT"
    names = set(re.findall(r"\.\./images/pages/([\w.-]+)", text))
    files = {path.name: path for path in screenshots.IMAGES.iterdir()}
    assert names == set(files) and len(names) == 4 * len(KINDS)
    assert sum(path.stat().st_size for path in files.values()) <= MOST_BYTES
    for name, path in files.items():
        assert _is_webp(path), name


def _is_webp(path: Path) -> bool:
    head = path.read_bytes()[:12]
    return head[:4] == b"RIFF" and head[8:] == b"WEBP" and struct.unpack("<I", head[4:8])[0] + 8 == path.stat().st_size


def test_a_missing_picture_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(screenshots, "IMAGES", tmp_path)
    with pytest.raises(AssertionError):
        test_the_document_is_up_to_date_and_its_pictures_exist()
