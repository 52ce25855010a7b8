"""`moeprof inspect` where nothing can be counted: reports, recorded captures, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.ncu_pages import folder, sass_page
from click.testing import CliRunner

from moeprof import resources
from moeprof.cli.main import cli
from moeprof.errors import MoeprofError

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, traces: Path) -> Path:
    return folder(tmp_path_factory.mktemp("pages"), traces)


def test_without_ncu_a_capture_shows_its_trace_and_its_own_counters() -> None:
    bare = {"PATH": "/usr/bin:/bin"}
    ran = CliRunner(env=bare).invoke(cli, ["inspect", str(SAMPLE), "--kernel", "silu", "--variant", "graph", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.output)
    cost = said["traced"][0]["cost"]
    ranked = json.loads(CliRunner().invoke(cli, ["kernels", str(SAMPLE), "--variant", "graph", "--json"]).output)[
        "variants"
    ]["graph"]
    place = next(i for i, k in enumerate(ranked["kernels"], 1) if "silu" in k["name"])
    mine = ranked["kernels"][place - 1]
    assert said["traced"][0]["rank"] == place and [
        cost[key] for key in ("time_ns", "exposed_ns", "gap_ns", "grid")
    ] == [mine[key] for key in ("time_ns", "exposed_ns", "gap_ns", "grid")]
    assert said["traced"][0]["share"] == pytest.approx(mine["time_ns"] / ranked["span_ns"])
    assert (
        said["kernels"][0]["speed"]["dram_percent"]
        == mine["counters"]["dram__throughput.avg.pct_of_peak_sustained_elapsed"]
    )
    assert (
        [n["id"] for n in said["notes"]] == ["recorded-counters"]
        and "ncu was not found" in said["notes"][0]["text"]
        and "--ncu PATH" in said["notes"][0]["text"]
    )
    shown = CliRunner(env=bare).invoke(cli, ["inspect", str(SAMPLE), "--kernel", "silu"])
    assert (
        shown.exit_code == 0
        and "In the trace, without ncu" in shown.output
        and shown.output.count("triton_poi_fused_silu_0") >= 2
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((str(SAMPLE), "--kernel", "nosuch"), 2, "no kernel matches 'nosuch'"), ((str(SAMPLE), "--kernel", "silu", "--variant", "x"), 2, "has no variant 'x'"),
        (("router", "--kernel", "["), 2, "no regular expression"), (("--kernel", "x"), 2, "nothing to inspect"), (("a", "b", "--kernel", "x"), 2, "one target at a time"),
        (("router", "--kernel", "x"), 4, "ncu was not found"), (("router", "--kernel", "x", "--set", "full"), 2, "it changes a workload's parameter"),
        (("/nowhere/raw.csv", "--kernel", "x", "--dry-run"), 2, "no workload file"), (("router/none", "--kernel", "x", "--dry-run"), 2, "no variant 'none'"),
        (("router", "--kernel", "x", "--counters", "fulll", "--dry-run"), 2, "neither full, basic nor a metric"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(
    words: tuple[str, ...], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ran = CliRunner().invoke(cli, ["inspect", *words])
    assert isinstance(ran.exception, MoeprofError) and said in ran.exception.message and ran.exception.exit_code == code


def test_a_report_of_another_tool_or_without_the_kernel(tmp_path: Path, pages: Path) -> None:
    for given, said in (
        (SAMPLE / "graph" / "trace.sqlite", "holds no ncu table"),
        (pages / "raw.csv", "no kernel matches"),
        (pages / "source-sass.csv", "no counters in these files"),
    ):
        ran = CliRunner().invoke(cli, ["inspect", str(given), "--kernel", "nosuch"])
        assert isinstance(ran.exception, MoeprofError) and said in ran.exception.message


def test_a_report_without_lines_shows_its_instructions(tmp_path: Path, traces: Path) -> None:
    page = tmp_path / "sass.csv"
    page.write_text(sass_page(1))
    ran = CliRunner().invoke(cli, ["inspect", str(traces / "h200" / "ncu_raw.csv"), str(page), "--kernel", "nvjet"])
    assert ran.exit_code == 0 and "Hottest instructions" in ran.output and "Hottest source lines" not in ran.output
