"""Slices of a trace against masks over all of it: operations of a window, calls of a range, the call before a call."""

from __future__ import annotations

import numpy as np
import pytest
from recorded.recordings import trace

from moeprof.analysis.device import views
from moeprof.loaded.trace import analysis_of
from moeprof.trace.classify import BLOCKING

RECORDED = ("startend", "low-concurrency-mended", "peer", "sync-item-faulty")


@pytest.mark.parametrize("name", RECORDED)
def test_operations_of_a_window(name: str) -> None:
    view, rng = views(trace(name))[0], np.random.default_rng(0)
    assert len(view.overlapping(view.starts.min(), view.ends.max())) == len(view.starts) > 10
    for start, end in np.sort(rng.choice(np.concatenate([view.starts, view.ends, view.ends - 1]), (60, 2)), axis=1):
        assert list(view.overlapping(start, end)) == list(np.flatnonzero((view.starts < end) & (view.ends > start)))
        assert list(view.starting(start, end)) == list(np.flatnonzero((view.starts >= start) & (view.starts < end)))


@pytest.mark.parametrize("name", RECORDED)
def test_calls_of_a_range(name: str) -> None:
    whole, rng = trace(name), np.random.default_rng(1)
    view, calls = views(whole)[0], whole.calls
    times = np.concatenate([calls["start_ns"], calls["end_ns"]])
    assert len(view.host.within(times.min(), times.max(), calls.iloc[0].pid, None)) > 10
    for start, end in np.sort(rng.choice(times, (60, 2)), axis=1):
        one = calls.iloc[rng.integers(len(calls))]
        inside = (calls["start_ns"] >= start) & (calls["end_ns"] <= end) & (calls["pid"] == one.pid)
        assert view.host.within(start, end, one.pid, None).equals(calls[inside])
        assert view.host.within(start, end, one.pid, one.tid).equals(calls[inside & (calls["tid"] == one.tid)])


@pytest.mark.parametrize("kinds", [(), BLOCKING, ("launch",), ("alloc",)])
def test_the_call_before_a_call(kinds: tuple[str, ...]) -> None:
    whole = trace("startend")
    host, calls = views(whole)[0].host, whole.calls
    chosen = calls["kind"].isin(kinds) if kinds else calls["start_ns"] == calls["start_ns"]
    found = host.last_before(np.arange(-1, len(calls)), *kinds)
    assert found[0] == -1
    for row in range(len(calls)):
        earlier = np.flatnonzero(
            chosen & (calls["tid"] == calls["tid"].iloc[row]) & (calls["start_ns"] < calls["start_ns"].iloc[row])
        )
        assert found[row + 1] == (earlier[-1] if len(earlier) else -1)


def test_the_evidence_names_the_call_that_blocked() -> None:
    (window,) = analysis_of(trace("sync-item-faulty")).windows
    assert {c.what for c in window.idle_causes if c.cause == "sync"} == {"cudaStreamSynchronize"}
