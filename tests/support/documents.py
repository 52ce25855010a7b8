"""Files and commands of a document, as they stand: a fenced block after a comment ``<!-- file: NAME -->`` or ``<!-- run -->``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fakes.forked import WITH_TORCH
from paths import FAKES

CLIENT = FAKES / "forked_client.py"
BLOCK = re.compile(r"^<!-- (file|run)(?:: ([^\n]*?))? -->\n```\w+\n(.*?)^```$", flags=re.S | re.M)
NEEDS = re.compile(r"needs the command (\w+)")


@dataclass(frozen=True)
class Block:
    """``kind`` "file" (``note`` is its name) or "run" (``note`` says what it needs and how it may end)."""

    kind: str
    note: str
    text: str

    @property
    def needs(self) -> str:
        """The command of moeprof that must exist; "" where none is named."""
        found = NEEDS.search(self.note)
        return found[1] if found else ""

    @property
    def codes(self) -> set[int]:
        """The exit codes with which it may end."""
        return {0, *(int(code) for code in re.findall(r"may end with (\d+)", self.note))}


def blocks(document: Path) -> list[Block]:
    """All marked blocks, in order."""
    return [Block(*found) for found in BLOCK.findall(document.read_text(encoding="utf-8"))]


def write_files(document: Path, folder: Path) -> None:
    """Save the document's files."""
    for block in blocks(document):
        if block.kind == "file":
            (folder / block.note).write_text(block.text)


def has_command(name: str) -> bool:
    """Whether ``moeprof NAME`` exists."""
    return WITH_TORCH.run((name, "--help"), Path.cwd(), dict(os.environ), timeout_s=60).returncode == 0


def run(block: Block, folder: Path, fresh: bool = False) -> str:
    """Run a block's commands in ``folder`` with this Python first on PATH; stops at the first that fails. Its output.

    ``moeprof`` is a fork of a warm process, unless ``fresh``. One thread: on a busy machine threads that wait for one another take
    minutes.
    """
    with tempfile.TemporaryDirectory() as place:
        first = Path(sys.executable).parent
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{first}{os.pathsep}{os.environ['PATH']}"}
        kept: tuple[int, ...] = ()
        if not fresh:
            kept = (WITH_TORCH.requests.fileno(),)
            command = Path(place, "moeprof")
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{CLIENT}" "$@"\n')
            command.chmod(0o755)
            environment |= {"MOEPROF_FORKS": str(kept[0]), "PATH": f"{place}{os.pathsep}{environment['PATH']}"}
        words = ["bash", "-e", "-c", block.text]
        ran = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, pass_fds=kept
        )
    assert ran.returncode in block.codes, f"{block.text}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout + ran.stderr


# Links and anchors ----------------------------------------------------------------------------------------------------

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^( *)```.*?^\1```$|^    [^\n]*$", flags=re.S | re.M)
ANCHOR = re.compile(r'<a id="([^"]+)">')


def prose(document: Path) -> str:
    """The document's text without its blocks of code."""
    return CODE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """The places that a link can name: headings, as GitHub spells them, and ``<a id="...">``."""
    text = prose(document)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, flags=re.M)
    names: list[str] = []
    for heading in headings:
        plain = LINK.sub(r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        seen = sum(re.fullmatch(re.escape(slug) + r"(-\d+)?", name) is not None for name in names)
        names.append(f"{slug}-{seen}" if seen else slug)
    return {*names, *ANCHOR.findall(text)}


def dead_links(document: Path) -> list[str]:
    """The targets of links and images that lead nowhere: a missing file or folder, or a missing anchor of a document."""
    text = prose(document)
    targets = [target for _, target in LINK.findall(text)] + IMAGE.findall(text)
    return [target for target in targets if not target.startswith("https://") and not _leads(document, target)]


def _leads(document: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    return file.exists() and (not anchor or (file.suffix == ".md" and anchor in anchors(file)))
