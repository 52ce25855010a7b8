"""Every note that the catalogue has is given somewhere, and its text takes exactly its evidence."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import moeprof
from moeprof.notes import CATALOGUE, note

SOURCES = "\n".join(p.read_text() for p in Path(moeprof.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("id", sorted(CATALOGUE))
def test_each_note_is_given_somewhere(id: str) -> None:
    assert len(re.findall(rf'["\']{id}["\']', SOURCES)) >= 2


def test_evidence_fills_the_text_and_stays_as_data() -> None:
    found = note("clocks-fell", before_mhz=1980, after_mhz=1500, reasons="power cap")
    assert found.text.endswith("from 1980 to 1500 MHz during the run (power cap)") and found.severity == "warning"
    assert found.evidence == {"before_mhz": 1980, "after_mhz": 1500, "reasons": "power cap"}
    with pytest.raises(KeyError):
        note("clocks-fell", before_mhz=1)


def test_texts_name_their_fields() -> None:
    for _, text in CATALOGUE.values():
        assert all(field is None or field.isidentifier() for _, field, _, _ in string.Formatter().parse(text))
