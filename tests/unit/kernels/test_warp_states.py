"""Why warps wait: shares of a warp's life from ncu's counters, real and made; what shrank from variant to variant; the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders.sample_captures import recorded
from pages import rendered

from moeprof import resources
from moeprof.capture import commands
from moeprof.kernels.warp_states import of_study, stalls, steps
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture
from moeprof.machine.ncu_metrics import WARP_STATE_METRICS as METRICS
from moeprof.machine.ncu_metrics import WARP_STATE_PREFIX as PREFIX
from moeprof.machine.ncu_metrics import WARP_STATE_SUFFIX as SUFFIX
from moeprof.machine.ncu_metrics import WARP_STATES as STATES
from moeprof.machine.tools import Tool
from moeprof.trace.ncu.counters import read_counters

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


def counted(*kernels: tuple[str, float, dict[str, float]]) -> pd.DataFrame:
    """A COUNTERS table: (kernel, duration in ns, state -> warps)."""
    rows = []
    for launch, (kernel, duration, states) in enumerate(kernels):
        metrics = {
            "gpu__time_duration.sum": duration,
            **{f"{PREFIX}{state}{SUFFIX}": value for state, value in states.items()},
        }
        rows += [
            {"launch": launch, "kernel": kernel, "metric": metric, "value": value} for metric, value in metrics.items()
        ]
    return pd.DataFrame(rows)


@pytest.fixture
def made() -> Capture:
    plain = capture.load(SAMPLE)
    frames = (
        counted(("tiny", 1.0, {"wait": 9.0}), ("one", 90.0, {"long_scoreboard": 6.0, "barrier": 3.0, "selected": 1.0})),
        counted(("two", 50.0, {"long_scoreboard": 1.0, "barrier": 3.5, "selected": 0.5})),
        counted(("three", 30.0, {"long_scoreboard": 1.5, "barrier": 0.25, "selected": 0.75})),
    )
    return replace(plain, variants=tuple(recorded(v, counters=f) for v, f in zip(plain.variants, frames, strict=True)))


def test_the_longest_kernel_decides_and_its_shares_sum_to_one(made: Capture) -> None:
    found = of_study(made)
    assert [f.kernel for f in found] == ["one", "two", "three"]
    assert found[0].shares == {"long_scoreboard": 0.6, "barrier": 0.3, "selected": 0.1}
    assert all(sum(f.shares.values()) == pytest.approx(1) for f in found)


def test_each_step_names_the_wait_that_shrank_most(made: Capture) -> None:
    first, second = steps(of_study(made))
    assert (first.before, first.after, first.state, first.share_before, first.share_after) == (
        "baseline",
        "overlap",
        "long_scoreboard",
        0.6,
        0.2,
    )
    assert (second.state, second.share_before, second.share_after) == ("barrier", 0.7, 0.1)
    again = of_study(made)[:1] * 2
    assert steps(again) == ()  # nothing shrank


def test_the_page_shows_the_states_and_what_shrank(made: Capture) -> None:
    page = rendered(made)
    assert "Why warps wait: barrier falls from 70.0 % to 10.0 %, overlap to graph" in page
    assert "a load from global or local memory" in page and "<td>60.0 %</td><td>20.0 %</td>" in page.replace("\n", "")
    plain = capture.load(SAMPLE)
    assert '<section id="stalls">' not in rendered(plain)
    assert stalls(recorded(plain.variants[0], counters=None)) is None


def test_real_counters_of_an_h200_are_read(traces: Path) -> None:
    frame = read_counters(traces / "h200" / "ncu_raw.csv")
    names = set(frame["metric"].astype(str))
    assert {m for m in names if m.startswith(PREFIX)} == set(METRICS)  # every state that the chip has, and no other
    plain = capture.load(SAMPLE)
    found = stalls(recorded(plain.variants[0], counters=frame))
    assert (
        found is not None and found.kernel.startswith("nvjet_sm90") and sum(found.shares.values()) == pytest.approx(1)
    )
    longest = frame.loc[frame["metric"] == "gpu__time_duration.sum"].sort_values("value").iloc[-1]["launch"]
    value: Any = frame.loc[(frame["launch"] == longest) & (frame["metric"] == f"{PREFIX}gmma{SUFFIX}"), "value"].iloc[0]
    every = frame.loc[(frame["launch"] == longest) & frame["metric"].isin(METRICS), "value"].sum()
    assert found.shares["gmma"] == pytest.approx(value / every)


def test_ncu_is_asked_for_them_only_where_a_workload_wants_them() -> None:
    tool, target = Tool("ncu", Path("ncu"), "2025.3.1"), commands.Target("w", "v", "cuda", {})
    asked = [
        str(commands.ncu_count(commands.Request(stalls=on), tool, target, Path("r"), Path("o.csv"), ()))
        for on in (False, True)
    ]
    assert not any(metric in asked[0] for metric in METRICS) and all(metric in asked[1] for metric in METRICS)
    assert len(STATES) == len(METRICS) == 19
