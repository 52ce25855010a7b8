"""Which collectives of several ranks are one and the same, what refuses the match, and the bus bandwidth of what is matched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import rank_traces
from builders.rank_traces import MOVING_NS, Planted, analysed, facts_of, grow

from moeprof.ranks.analyze import Joined
from moeprof.ranks.collective import bus_factor, kind_of_kernel, kind_of_message
from moeprof.ranks.model import Place
from moeprof.trace import Trace
from moeprof.trace.tables import RANGES, table

base = rank_traces.base


# matching


def without(made: tuple[Place, Trace], dropped: list[int]) -> tuple[Place, Trace]:
    place, trace = made
    rows = trace.ops.index[trace.ops["kind"] == "comm"][dropped]
    return place, replace(trace, ops=trace.ops.drop(rows).reset_index(drop=True))


def test_matching_is_by_order_and_not_by_time(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 40_000_000)))  # by time nearly every collective would meet a later one
    joined = Joined.of(facts_of(made))
    (match,) = joined.matched
    assert (match.rows == np.arange(7)).all()
    (found,) = analysed(made).collectives
    assert not any(a.together for a in found.arrivals)
    assert any(n.id == "rank-doubt" for n in analysed(made).notes)


def test_counts_that_differ_are_matched_where_iterations_agree(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 4))
    made[2] = without(made[2], [0])
    analysis = analysed(made)
    (found,) = analysis.collectives
    assert (found.least, found.most, found.matched) == (6, 7, 4)
    assert found.refused == "counts differ: rank 2 has 6, the others 7" and found.coverage_ratio == 16 / 27
    assert found.arrivals[0].together and any(n.id == "rank-refused" for n in analysis.notes)


def test_counts_that_differ_without_iterations_are_refused(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 3))
    bare = [(place, replace(trace, ranges=table(RANGES, {}))) for place, trace in made]
    bare[1] = without(bare[1], [3])
    (found,) = analysed(bare).collectives
    assert (found.matched, found.arrivals, found.waiting_ns) == (0, (), None) and "rank 1 has 6" in found.refused


def told(made: tuple[Place, Trace], columns: dict[str, Any]) -> tuple[Place, Trace]:
    """The rank with messages beside its collectives."""
    place, trace = made
    comm = trace.ops[trace.ops["kind"] == "comm"]
    own = {name: comm[name].to_numpy() for name in ("start_ns", "end_ns", "device", "stream")}
    listed = {k: v if isinstance(v, list) else [v] * len(comm) for k, v in columns.items()}
    return place, replace(trace, messages=pd.DataFrame(own | listed)[list(MESSAGE)].astype({"collective": "category"}))


MESSAGE = {
    "start_ns": 0, "end_ns": 0, "device": 0, "stream": 0, "collective": "ncclAllReduce", "group": "a", "group_size": -1, "bytes": 8 << 20,
    "per_rank": 0, "peers": -1, "sequence": -1,
}  # fmt: skip


def _plain() -> dict[str, Any]:
    return {k: v for k, v in MESSAGE.items() if k not in ("start_ns", "end_ns", "device", "stream")}


def messaged(made: list[tuple[Place, Trace]], change: Callable[[int], dict[str, Any]]) -> list[tuple[Place, Trace]]:
    return [told(rank, _plain() | change(number)) for number, rank in enumerate(made)]


def test_sizes_that_differ_refuse_the_match(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 0)))
    odd = [8 << 20] * 7
    odd[4] = 4 << 20
    (found,) = analysed(messaged(made, lambda rank: {"bytes": odd if rank else 8 << 20})).collectives
    assert found.refused == f"sizes differ: number 5 is of {4 << 20} to {8 << 20} bytes" and found.matched == 0


def test_communicators_are_kept_apart(base: Trace) -> None:
    made, truth = grow(base, Planted((0,) * 4, jitter=0.01))
    pairs = analysed(messaged(made, lambda rank: {"group": "ab"[rank // 2]})).collectives
    assert [(c.group, c.ranks, c.matched) for c in pairs] == [("a", (0, 1), 7), ("b", (2, 3), 7)]
    skew = np.abs(truth.arrivals[2] - truth.arrivals[3])
    assert [a.skew_ns for a in pairs[1].arrivals] == skew.tolist()


def test_sequence_numbers_match_what_order_cannot(base: Trace) -> None:
    made, truth = grow(base, Planted((0, 0), jitter=0.01))
    first = without(made[0], [0, 3])
    made = [
        told(first, {**_plain(), "sequence": [1, 2, 4, 5, 6]}),
        told(made[1], {**_plain(), "sequence": list(range(7))}),
    ]
    (found,) = analysed(made).collectives
    skew = np.abs(truth.arrivals[0] - truth.arrivals[1])[[1, 2, 4, 5, 6]]
    assert (found.matched, found.refused) == (5, "") and [a.skew_ns for a in found.arrivals] == skew.tolist()


def test_an_absent_rank_is_said(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 0)))
    analysis = analysed(messaged(made, lambda rank: {"group_size": 8}))
    assert any("2 of 8 ranks are here" in n.text for n in analysis.notes)


# bus bandwidth


@pytest.mark.parametrize(
    ("kind", "ranks", "factor"),
    [("AllReduce", 2, 1.0), ("AllReduce", 8, 1.75), ("AllGather", 4, 0.75), ("ReduceScatter", 8, 0.875), ("AllToAll", 8, 0.875), ("Broadcast", 8, 1.0),
     ("Reduce", 3, 1.0), ("SendRecv", 2, 1.0), ("Barrier", 4, None), ("AllReduce", 1, None)],
)  # fmt: skip
def test_bus_factors_are_those_of_nccl_tests(kind: str, ranks: int, factor: float | None) -> None:
    assert bus_factor(kind, ranks) == factor


@pytest.mark.parametrize(
    ("message", "whole_bytes", "factor"),
    [({}, 8 << 20, 1.5), ({"collective": "ncclAllGather", "per_rank": 1}, 32 << 20, 0.75), ({"collective": "ncclReduceScatter", "per_rank": 1}, 32 << 20, 0.75),
     ({"collective": "ncclSendRecv", "peers": 4}, 8 << 20, 0.75), ({"collective": "ncclSendRecv", "peers": 1}, 8 << 20, 1.0)],
)  # fmt: skip
def test_bus_bandwidth_is_over_the_moving_time(
    base: Trace, message: dict[str, Any], whole_bytes: int, factor: float
) -> None:
    made, truth = grow(base, Planted((0,) * 4, late={1: ("compute", 150_000)}))
    (found,) = analysed(messaged(made, lambda rank: message), link_ceiling_gb_per_s=100.0).collectives
    moving = truth.ends.max(axis=0) - truth.arrivals.max(axis=0)
    rates = factor * whole_bytes / moving
    assert [a.bus_gb_per_s for a in found.arrivals] == pytest.approx(rates.tolist())
    assert found.bus_gb_per_s == pytest.approx(np.median(rates)) and found.of_ceiling == pytest.approx(
        np.median(rates) / 100
    )
    assert (
        found.bytes == 7 * whole_bytes
        and moving.max() <= MOVING_NS + 1_000
        and found.exchange == (factor == 0.75 and message.get("peers") == 4)
    )


def test_an_uneven_exchange_counts_its_busiest_rank(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 4))
    (found,) = analysed(
        messaged(made, lambda rank: {"collective": "ncclSendRecv", "peers": 4, "bytes": (1 + rank) << 20})
    ).collectives
    assert {a.bytes for a in found.arrivals} == {4 << 20} and found.refused == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "AllReduce"), ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)", "SendRecv"),
     ("ncclDevKernel_AllGather_RING_LL(x)", "AllGather"), ("void deep_ep::internode::dispatch<int>(int)", "DeepEP: dispatch")],
)  # fmt: skip
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of_kernel(name) == kind


@pytest.mark.parametrize(("called", "kind"), [("_allgather_base", "AllGather"), ("ncclReduceScatter", "ReduceScatter"), ("all_to_allv", "AllToAll"), ("ncclSendRecv", "SendRecv"), ("other", "other")])  # fmt: skip
def test_kinds_of_calls(called: str, kind: str) -> None:
    assert kind_of_message(called) == kind
