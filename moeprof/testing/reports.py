"""Write the records of a run as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import moeprof
from moeprof.loaded.pytest_run import Case, Run
from moeprof.storage.files import write_whole
from moeprof.storage.json import decode, dumps


def write(records: Sequence[str], page: Path | None, data: Path | None) -> list[Path]:
    """The files that were written; ``records`` are JSON texts of ``Case``, in any order."""
    cases = sorted((decode(Case, json.loads(text)) for text in records), key=lambda t: t.nodeid)
    run = Run(moeprof.__version__, tuple(cases))
    if data is not None:
        write_whole(data, dumps(run))
    if page is not None:
        from moeprof.report import html, pytest_run

        write_whole(page, html.render(pytest_run.page(run)))
    return [path for path in (data, page) if path is not None]
