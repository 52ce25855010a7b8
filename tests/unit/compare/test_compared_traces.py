"""Any two traces: what a unit of the same work costs, kernels matched, waits that became copies; the command and its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from recorded.recordings import path, trace

from moeprof.analysis.device import views
from moeprof.cli.main import cli
from moeprof.compare.traces import TraceComparison, compare, shared_out
from moeprof.compare.units import Wanted
from moeprof.errors import UsageError
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.loaded.trace import analysis_of
from moeprof.report.narrative.traces import sentences
from moeprof.report.traces import page
from moeprof.trace import Trace, read


def side(trace: Trace, name: str = "t") -> AnalysedTrace:
    return AnalysedTrace(name, trace, views(trace), analysis_of(trace))


def of(before: str, after: str) -> TraceComparison:
    return compare(side(trace(before), before), side(trace(after), after))


def test_the_waterfall_sums_and_findings_come_and_go() -> None:
    comparison = of("sync-item-faulty", "sync-item-mended")
    (device,) = comparison.devices
    assert (device.unit, device.units_before, device.units_after) == ("step", 10, 10)
    assert device.before_ns + sum(s.delta_ns for s in device.waterfall) == device.after_ns < device.before_ns
    assert [f.id for f in comparison.gone] == ["sync-api"] and not comparison.new
    assert next(c for c in device.counts if c.what == "waits of the host").before == 20


def test_without_a_common_range_there_is_no_unit_until_one_is_named() -> None:
    """Half the work in half the time is no change, and no speed-up either."""
    whole = trace("far-ahead-mended")
    bare = replace(whole, ranges=whole.ranges.iloc[:0])
    half = bare.ops.iloc[: len(bare.ops) // 2].reset_index(drop=True)
    (device,) = compare(side(bare), side(replace(bare, ops=half))).devices
    assert device.unit is None and not device.waterfall
    (device,) = compare(side(bare), side(replace(bare, ops=half)), Wanted(counts=(2, 1))).devices
    assert device.after_ns / device.before_ns == pytest.approx(1.0, abs=0.03)


def test_equal_lengths_are_not_no_change(traces: Path) -> None:
    before, after = (read(traces / "nsys" / f"mfu_2gpu_{which}.sqlite") for which in ("before", "after"))
    comparison = compare(side(before), side(after), Wanted("flash_fwd_kernel"))
    lengths = [t.ops["end_ns"].max() - t.ops["start_ns"].min() for t in (before, after)]
    assert abs(lengths[0] - lengths[1]) < 0.01 * lengths[0]
    assert all(1.10 < d.after_ns / d.before_ns < 1.17 for d in comparison.devices)
    assert all(re.search(r"B takes \d+ % longer than A", sentences(d)[0]) for d in comparison.devices)


def test_counts_of_whole_traces_are_whole_and_kernels_have_names_of_their_own(traces: Path) -> None:
    comparison = compare(*(side(read(traces / "nsys" / f"mfu_2gpu_{which}.sqlite")) for which in ("before", "after")))
    shown = [t for s in page(comparison).sections if s.id.startswith("sides-") for t in s.tables]
    counts = [t for t in shown if t.caption.startswith("Counts")]
    assert len(counts) == 2 and counts[0].rows[0] == ("kernels", "1,993", "1,793")
    cells = [cell for t in shown for row in t.rows for cell in row if re.fullmatch(r"[\d,]+\.\d", cell)]
    assert cells == [], "no count of 34.0"
    for kernels in (t for t in shown if t.caption.startswith("Kernels")):
        plain = [row[0] for row in kernels.rows if "elementwise" in row[0]]
        assert len(plain) >= 9 and len(set(plain)) == len(plain)


def test_waits_that_became_tiny_copies_are_described_and_not_praised() -> None:
    before = trace("sync-api-mended")
    syncs = before.calls.iloc[before.ops["call"]].copy()
    syncs["kind"], syncs["correlation"] = "sync", -1
    syncs["start_ns"], syncs["end_ns"] = syncs["end_ns"], syncs["end_ns"] + 10
    kinds = before.calls["kind"].cat.categories
    waiting = replace(before, calls=_sorted(before, syncs, kinds))
    after = _with_tiny_copies(before)
    (device,) = compare(side(waiting), side(after)).devices
    (sentence,) = [w for w in sentences(device) if "waits of the host became" in w]
    assert (
        "40 waits of the host became 40 copies of 20 bytes; although the time fell idle and exposed copy time rose"
        in sentence
    )
    assert "the waits moved into copies and are not gone" in sentence


def _sorted(trace: Trace, extra, kinds):  # type: ignore[no-untyped-def]
    import pandas as pd

    added = pd.concat([trace.calls, extra], ignore_index=True)
    added["kind"] = pd.Categorical(added["kind"].astype(str), categories=kinds.union(["sync"]))
    added["name"] = pd.Categorical(added["name"].astype(str))
    return added  # rows of ops["call"] stay valid


def _with_tiny_copies(trace: Trace) -> Trace:
    import pandas as pd

    """Kernels 30 us shorter, each followed by a copy of 20 bytes and by idle time: the whole is a little shorter."""
    kernels = trace.ops.assign(end_ns=trace.ops["end_ns"] - 30_000)
    copies = kernels.assign(start_ns=kernels["end_ns"] + 100, end_ns=kernels["end_ns"] + 1_500)
    copies = copies.astype({"kind": str, "direction": str}).assign(kind="copy", direction="D2H", bytes=20, call=-1)
    ops = pd.concat([kernels.astype({"kind": str, "direction": str}), copies], ignore_index=True)
    ops = ops.sort_values(["start_ns", "end_ns"], kind="stable").reset_index(drop=True)
    return replace(trace, ops=ops.astype({"kind": "category", "direction": "category"}))


def renamed(trace: Trace, old: str, new: str) -> Trace:
    names = trace.ops["name"].astype(str).str.replace(old, new, regex=False).astype("category")
    return replace(trace, ops=trace.ops.assign(name=names))


def test_a_renamed_kernel_is_replaced_and_a_dropped_one_gone() -> None:
    before = trace("graph-opportunity-faulty")
    after = renamed(before, "nvjet_sm90", "cutlass_sm90")
    kernels = compare(side(before), side(after)).devices[0].kernels
    swapped = [k for k in kernels if k.status == "replaced"]
    assert [k.name[:5] for k in swapped] == ["nvjet"] and (swapped[0].other or "")[:7] == "cutlass"
    assert {k.status for k in kernels} == {"replaced", "same"}
    without = before.ops[~before.ops["name"].astype(str).str.contains("softmax")].reset_index(drop=True)
    fewer = compare(side(before), side(replace(before, ops=without))).devices[0].kernels
    assert [k.status for k in fewer if "softmax" in k.name] == ["gone"]


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**12), min_size=1), st.floats(0.05, 1e4))
def test_shares_sum_to_the_rounded_whole(values: dict[str, int], units: float) -> None:
    shares = shared_out(values, units)
    assert sum(shares.values()) == round(sum(values.values()) / units)
    assert all(abs(shares[k] - values[k] / units) <= 1 for k in values)


def test_the_command_writes_a_page_twice_the_same(tmp_path: Path) -> None:
    argv = ["report", "--diff", str(path("sync-item-faulty")), str(path("sync-item-mended")), "-o"]
    for name in ("a.html", "b.html"):
        ran = CliRunner().invoke(cli, [*argv, str(tmp_path / name)])
        assert ran.exit_code == 0 and "Wrote" in ran.stdout and "sync-api" in ran.stdout
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    ran = CliRunner().invoke(cli, [*argv, str(tmp_path / "c.html"), "--json"])
    data = json.loads(ran.stdout)["diff"]
    assert data["schema_version"] == 1 and data["devices"][0]["waterfall"][0]["label"] == "compute"


def test_bad_pairs_are_one_clear_line(tmp_path: Path) -> None:
    name = str(path("sync-item-faulty"))
    for argv, says in (
        ([name, name, name], "contrasts two, found 3"),
        ([name, name, "--units", "3"], "--units '3' is not A=N,B=N"),
        ([name, name, "--units", "A=0,B=2"], "is not A=N,B=N"),
        ([name, name, "--unit", "step", "--whole"], "--unit and --whole exclude each other"),
        ([name, "--unit", "step"], "are for two traces or two captures of programs"),
        ([name, "--diff"], "--diff needs two traces"),
        ([name, "--range", "step"], "--range is for two traces"),
        ([name, name, "--diff", "--range", "nowhere"], "no range 'nowhere'"),
    ):
        ran = CliRunner().invoke(cli, ["report", *argv, "-o", str(tmp_path / "x.html")])
        assert isinstance(ran.exception, UsageError) and says in ran.exception.message
    assert not (tmp_path / "x.html").exists()


def test_a_nested_range_can_be_compared() -> None:
    comparison = compare(side(trace("peer")), side(trace("peer")), Wanted("iteration"))
    assert comparison.devices[0].unit == "iteration" and comparison.devices[0].units_before > 1
    assert all(np.isclose(k.delta_ns, 0) for k in comparison.devices[0].kernels)
