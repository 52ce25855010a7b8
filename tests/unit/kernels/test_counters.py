"""Raw reports of ncu through the optional package, with a fake one; ``analyze`` of counters."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from click.testing import CliRunner

from moeprof.cli.main import cli
from moeprof.errors import ToolError, TraceError
from moeprof.trace.ncu.open import read_ncu


class FakeMetric:
    """What ncu-report gives for a metric."""

    def __init__(self, value: object, unit: str) -> None:
        self._value, self._unit = value, unit

    def value(self) -> object:
        return self._value

    def unit(self) -> str:
        return self._unit

    def has_value(self) -> bool:
        return self._value is not None


class FakeAction:
    """A counted kernel."""

    NameBase_DEMANGLED = 2
    METRICS: ClassVar = {
        "gpu__time_duration.sum": FakeMetric(12.5, "us"), "launch__grid_dim_x": FakeMetric(7, ""), "dram__bytes.sum": FakeMetric(None, "byte"),
        "launch__func_cache_config": FakeMetric("none", ""), "device__attribute_clock_rate": FakeMetric(1, ""), "text": FakeMetric(1, ""),
        "sm__x.avg": FakeMetric(float("nan"), ""),
    }  # fmt: skip

    def name(self, base: int) -> str:
        return {2: "void kernel<int>(T1 *)"}[base]

    def metric_names(self) -> tuple[str, ...]:
        return tuple(self.METRICS)

    def metric_by_name(self, name: str) -> FakeMetric:
        return self.METRICS[name]

    def rule_results_as_dicts(self) -> list[dict[str, object]]:
        message = {"message": "do less", "type": "OPT"}
        return [
            {"rule_identifier": "R", "rule_message": message, "speedup_estimation": {"speedup": 12.0}},
            {"rule_message": {}},
        ]


class FakeReport:
    """A report of one range with one kernel."""

    def num_ranges(self) -> int:
        return 1

    def range_by_idx(self, _: int) -> FakeReport:
        return self

    def num_actions(self) -> int:
        return 1

    def action_by_idx(self, _: int) -> FakeAction:
        return FakeAction()


def test_a_raw_report_of_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.ncu-rep"
    path.write_bytes(b"NVR\x00rest")
    monkeypatch.setitem(sys.modules, "ncu_report", SimpleNamespace(load_report=lambda _: FakeReport()))
    found = read_ncu(path)
    assert found is not None
    rows = found.table.set_index("metric")
    assert rows.loc["gpu__time_duration.sum", "value"] == 12_500 and rows.loc["gpu__time_duration.sum", "unit"] == "ns"
    assert set(rows.index) == {"gpu__time_duration.sum", "launch__grid_dim_x"}, (
        "no text, no nan, nothing that was not counted"
    )
    assert rows["grid"].iloc[0] == "(7, -1, -1)" and rows["kernel"].iloc[0] == "void kernel<int>(T1 *)"
    assert [(r["rule"], r["speedup_percent"]) for r in found.rules] == [("R", 12.0)]
    assert (
        json.loads(json.dumps(found.to_json()))["launches"][0]["metrics"]["gpu__time_duration.sum"]["value"] == 12_500
    )


def test_a_raw_report_without_the_package_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.ncu-rep"
    path.write_bytes(b"NVR\x00rest")
    monkeypatch.setitem(sys.modules, "ncu_report", None)
    with pytest.raises(ToolError, match="needs the package ncu-report"):
        read_ncu(path)

    def fails(_: str) -> None:
        raise RuntimeError("bad\nfile")

    monkeypatch.setitem(sys.modules, "ncu_report", SimpleNamespace(load_report=fails))
    with pytest.raises(TraceError, match="cannot be opened: bad file"):
        read_ncu(path)


def test_analyze_shows_counters_and_rules(traces: Path) -> None:
    ran = CliRunner().invoke(cli, ["analyze", str(traces / "h200" / "ncu_details.csv")])
    assert (
        ran.exit_code == 0
        and "cunn_SoftMaxForwardReg" in ran.stdout
        and "CPIStall" in ran.stdout
        and re.search(r"^cunn_SoftMaxForwardReg +CPIStall +35$", ran.stdout, flags=re.M)
        and re.search(r"speed-up,( %|\s)", ran.stdout)
    )
    ran = CliRunner().invoke(cli, ["analyze", str(traces / "h200" / "ncu_raw.csv"), "--json"])
    found = json.loads(ran.stdout)
    assert len(found["launches"]) == 10 and found["source"]["kind"] == "ncu"
    assert found["launches"][0]["metrics"]["gpu__time_duration.sum"] == {"value": pytest.approx(174_592), "unit": "ns"}
    assert read_ncu(traces / "h200" / "streams_graph_node.sqlite") is None and read_ncu(traces) is None
