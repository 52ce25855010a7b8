"""Every note of the catalogue is given by some code, with exactly the evidence that its text takes."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

from moeprof.notes import CATALOGUE, note


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call of ``note`` in the sources, with the id that it gives; "" if the id is no literal."""
    for folder in ("moeprof", "workloads"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "note":
                    first = node.args[0] if node.args else None
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        yield first.value, node
                    elif isinstance(node.func, ast.Name):
                        yield f"{Path(path).name}:{node.lineno}", node


CALLS = list(calls())


def fields(text: str) -> dict[str, str]:
    """The names in a text and how each is formatted."""
    return {name: spec or "" for _, name, spec, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("id", sorted(CATALOGUE))
def test_each_note_is_given_by_some_code(id: str) -> None:
    assert any(given == id for given, _ in CALLS), f"no code calls note({id!r}, ...)"


def test_each_call_gives_a_note_of_the_catalogue_with_all_evidence_of_its_text() -> None:
    assert len(CALLS) >= len(CATALOGUE)
    for id, call in CALLS:
        assert id in CATALOGUE, f"{id}: not in the catalogue"
        given = {keyword.arg for keyword in call.keywords}
        assert fields(CATALOGUE[id][1]).keys() <= given, f"{id}, line {call.lineno}: {given}"


@pytest.mark.parametrize("id", sorted(CATALOGUE))
def test_each_text_is_filled_by_its_fields(id: str) -> None:
    severity, text = CATALOGUE[id]
    named = fields(text)
    assert severity in ("info", "warning", "error") and all(name.isidentifier() for name in named)
    evidence = {name: 12.5 if spec else f"<{name}>" for name, spec in named.items()}
    filled = note(id, **evidence).text
    assert all(format(value, named[name]) in filled for name, value in evidence.items()) and "{" not in filled


def test_evidence_fills_the_text_and_stays_as_data() -> None:
    clocks = note("clocks-fell", before_mhz=1980, after_mhz=1500, reasons="power cap")
    assert clocks.text.endswith("from 1980 to 1500 MHz during the run (power cap)") and clocks.severity == "warning"
    assert clocks.evidence == {"before_mhz": 1980, "after_mhz": 1500, "reasons": "power cap"}
    with pytest.raises(KeyError):
        note("clocks-fell", before_mhz=1)
