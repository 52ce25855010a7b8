"""CONTRIBUTING: its worked examples run, its packages are those that exist and in the order that import-linter checks."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import click
import documents
import pytest
from click.testing import CliRunner
from paths import RECORDED, ROOT

from moeprof import resources
from moeprof.analysis.device import views
from moeprof.cli.main import cli
from moeprof.errors import TraceError
from moeprof.gate import metrics
from moeprof.loaded import capture
from moeprof.workload import find

DOCUMENT = ROOT / "CONTRIBUTING.md"
SAMPLES = resources.folder("reports") / "samples"
TRACE = SAMPLES / "kv_transfer" / "graph" / "trace.sqlite"


def example(name: str, folder: Path) -> ModuleType:
    """The example of this name, saved and imported."""
    documents.write_files(DOCUMENT, folder)
    spec = importlib.util.spec_from_file_location(f"contributing_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_workload_is_proven_and_its_fault_is_caught(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    documents.write_files(DOCUMENT, tmp_path)
    workload = find.load(str(tmp_path / "scale.py"))
    params = dict(workload.presets["tiny"])
    proofs = {v.name: workload.prove(params, "cpu", v.build(params, "cpu")) for v in workload.variants}
    assert {name: proof.ok for name, proof in proofs.items()} == {"two": True, "one": True}
    (fault,) = workload.faults.values()
    assert not workload.prove(params, "cpu", fault(params, "cpu")).ok


def test_the_finding_is_reported_with_its_evidence(tmp_path: Path) -> None:
    documents.write_files(DOCUMENT, tmp_path)
    trace = SAMPLES / "decode_kernel" / "baseline" / "trace.sqlite"
    words = ["analyze", str(trace), "--rules", str(tmp_path / "long_kernel.py"), "--json"]
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0, ran.output
    (finding,) = [f for f in json.loads(ran.stdout)["findings"] if f["id"] == "long-kernel"]
    assert finding["gain_ns"] == finding["evidence"]["duration_ns"] > 0


def test_the_metric_has_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "graph_replays" not in metrics.NAMES
    (added,) = example("graph_replays", tmp_path).NAMES.items()
    monkeypatch.setitem(metrics.NAMES, *added)
    sample = capture.load(SAMPLES / "kv_transfer")
    assert [metrics.value(sample, name, "graph_replays") for name in ("graph", "overlap")] == [1.0, 0.0]


def test_the_reader_fills_the_tables_and_names_a_bad_line(tmp_path: Path) -> None:
    spans = example("spans", tmp_path)
    file = tmp_path / "trace.spans"
    file.write_text("spans 1\n10 30 0 7 gemm\n40 45 0 7 void add<float>(int)\n5 9 1 7 gemm\n")
    assert file.read_bytes().startswith(spans.MAGIC)
    trace = spans.read_spans(file)
    assert list(trace.ops["start_ns"]) == [5, 10, 40] and trace.ops["name"].iloc[2] == "void add<float>(int)"
    assert [(view.index, len(view.ops)) for view in views(trace)] == [(0, 2), (1, 1)]
    file.write_text("spans 1\n10 30 0 7\n")
    with pytest.raises(TraceError, match="line 2: 4 words instead of five"):
        spans.read_spans(file)


def test_the_command_prints_text_and_json(tmp_path: Path) -> None:
    group = click.Group(commands={"devices": example("devices", tmp_path).devices})
    text, data = (CliRunner().invoke(group, ["devices", str(TRACE), *words]) for words in ([], ["--json"]))
    assert text.exit_code == 0 and re.fullmatch(r"device 0: \d+ operations\n", text.stdout), text.output
    (count,) = json.loads(data.stdout)["devices"].values()
    assert f" {count} " in text.stdout and count > 100


def test_the_files_to_touch_exist() -> None:
    named = set(re.findall(r"`((?:moeprof|scripts|tests|workloads|cuda|reports)/[\w/.]*)`", DOCUMENT.read_text()))
    assert len(named) > 20 and {name for name in named if "NAME" not in name and not (ROOT / name).exists()} == set()
    assert RECORDED.is_dir()


def test_packages_stand_in_the_order_that_is_checked() -> None:
    """Low to high in the document, high to low in the contract; packages of one row may stand in any order."""
    (section,) = re.findall(r"## Packages, low to high\n(.*?)\n`workloads/`", DOCUMENT.read_text(), flags=re.S)
    documented = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in section.splitlines() if row.startswith("| `")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    order = [name for layer in reversed(layers) for name in re.findall(r"\w+", layer)]
    assert sorted(order) == sorted(name for names in documented for name in names)
    places = [[order.index(name) for name in names] for names in documented]
    assert all(max(low) < min(high) for low, high in pairwise(places)), places


def test_the_fourteen_errands_lead_to_files() -> None:
    text = (ROOT / "docs" / "explanation" / "redesign.md").read_text()
    rows = re.findall(r"^\|[^|]+\|[^|]+\| (?:yes|no) \| (.+) \|$", text.partition("## Fourteen errands")[2], flags=re.M)
    files = [file for row in rows for file in re.findall(r"`([\w/.]+)`", row)]
    assert len(rows) == 14 and len(files) >= 13
    assert [file for file in files if not (ROOT / file).is_file()] == []
