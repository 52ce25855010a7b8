"""The reports of a gate as files, each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moeprof.gate.gate import Check
from moeprof.report.gate_formats import checked, junit, sarif
from moeprof.storage.files import write_whole
from moeprof.storage.json import dumps

FORMS = {"markdown": checked.markdown, "junit": junit.render, "sarif": sarif.render, "output": dumps}


def write(check: Check, targets: Sequence[tuple[str, Path]]) -> None:
    """Write reports, each whole or not at all; one of an earlier run is replaced."""
    for form, path in targets:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, FORMS[form](check))
