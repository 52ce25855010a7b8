"""The tutorial of a first capture: its commands run as they stand, on a CPU."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest
from paths import ROOT

from moeprof.storage import manifest

DOCUMENT = ROOT / "docs" / "tutorial" / "first_capture.md"


def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    capture, report, sample, analyze = documents.blocks(DOCUMENT)
    output = documents.run(capture, tmp_path)
    assert "kv_transfer" in output
    variants = {v.name: v for v in manifest.read(tmp_path / "first").variants}
    assert all(variants[name].status == "ok" and variants[name].part("trace") for name in ("baseline", "overlap"))
    assert variants["graph"].status == "skipped" and variants["graph"].reason
    documents.run(report, tmp_path)
    documents.run(sample, tmp_path)
    assert all((tmp_path / name).stat().st_size > 100_000 for name in ("first.html", "h200.html"))
    assert "compute" in documents.run(analyze, tmp_path)
