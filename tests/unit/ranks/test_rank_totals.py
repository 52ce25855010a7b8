"""Sums and shares over hand-made ranks, each number known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from moeprof.analysis.model import Communication, Idle, Ledger
from moeprof.ranks import totals
from moeprof.ranks.heat import Bounds, heat
from moeprof.ranks.model import Clocks, Critical, GroupAnalysis, Lateness, Place, Rank, RankWindow, Slice
from moeprof.ranks.totals import ClassTotal, CriticalTotal


def window(waiting_ns: int | None, *communication: Communication) -> RankWindow:
    """100 ns: 50 compute, 30 exposed communication, 20 idle."""
    ledger = Ledger(
        **{**dict.fromkeys(Ledger.__dataclass_fields__, 0), "compute_ns": 50, "exposed_comm_ns": 30, "idle_ns": 20}
    )
    idle = Idle(**{**dict.fromkeys(Idle.__dataclass_fields__, 0), "host_ns": 20})
    return RankWindow("step", 0, 0, 100, 100, ledger, idle, communication, waiting_ns, waiting_ns)


def rank(number: int, *windows: RankWindow, late_ns: int = 0, slices: tuple[Slice, ...] = ()) -> Rank:
    lateness = Lateness(0, 1, late_ns, {})
    return Rank(Place(number, "given", "trace"), windows, 1, 0, 0, lateness, slices)


def group(ranks: Sequence[Rank], declared_bytes: int | None = None) -> GroupAnalysis:
    return GroupAnalysis("made", tuple(ranks), (), Clocks("none", "", None), declared_bytes=declared_bytes)


def moved(name: str, count: int, hidden_ns: int, exposed_ns: int) -> Communication:
    return Communication(name, count, hidden_ns + exposed_ns, hidden_ns, exposed_ns, None)


def test_communication_adds_up_by_class_over_windows() -> None:
    of_rank = rank(0, window(0, moved("nccl", 2, 30, 10), moved("copy", 1, 0, 5)), window(0, moved("nccl", 1, 0, 20)))
    by_class = totals.class_totals(of_rank)
    assert by_class == {"nccl": ClassTotal(3, 30, 30), "copy": ClassTotal(1, 0, 5)}
    assert by_class["nccl"].busy_ns == 60 and by_class["nccl"].hidden_ratio == 0.5 and ClassTotal().hidden_ratio is None


def test_the_declared_rate_is_of_all_windows_and_of_one_class_alone() -> None:
    first, second = window(0, moved("nccl", 1, 30, 10)), window(0, moved("nccl", 1, 0, 40))
    assert totals.declared_gb_per_s(group([rank(3, first, second)], 800)) == {3: 2 * 800 / 80}
    assert totals.declared_gb_per_s(group([rank(3, first, second)])) == {}
    assert totals.declared_gb_per_s(group([rank(3, first), rank(4, window(0, moved("copy", 1, 0, 1)))], 800)) == {}


def test_waiting_is_known_only_of_ranks_with_matched_collectives() -> None:
    known, unknown = rank(0, window(10), window(20)), rank(1, window(None))
    assert totals.waiting_ratio([known]) == 30 / 200 and totals.waiting_ratio([unknown]) is None
    assert totals.part_percentiles([known, unknown], totals.WAITING, (0, 100)) == (30, 30)
    assert totals.part_percentiles([known, unknown], "span_ns", (0, 50, 100)) == (100, 150, 200)
    assert totals.part_percentiles([unknown], totals.WAITING, (50,)) == (None,)


def test_critical_ranks_are_counted_by_reason_the_most_often_first() -> None:
    decisions = (
        Critical(0, 2, "waited for", 5, "copy", 100), Critical(1, 1, "ends last", None, None, 100),
        Critical(2, 2, "waited for", 7, "host", 100), Critical(3, 2, "waited for", 1, "host", 100),
    )  # fmt: skip
    assert totals.critical_totals(decisions) == (
        CriticalTotal(2, "waited for", 3, 13, "host"), CriticalTotal(1, "ends last", 1, None, None),
    )  # fmt: skip


def test_the_latest_ranks_come_first_and_equal_ones_by_number() -> None:
    ranks = [rank(0, late_ns=5), rank(1, late_ns=9), rank(2, late_ns=5)]
    assert [r.place.rank for r in totals.by_lateness(ranks[::-1])] == [1, 0, 2]


@pytest.mark.parametrize(("key", "share"), [("waiting", 0.1), ("moving", 0.2), ("busy", 0.5)])
def test_shares_of_a_window(key: str, share: float) -> None:
    shares = heat(group([rank(0, window(10), window(10)), rank(1, window(10))]), key, Bounds(8, 2, 8))
    assert shares.members == ((0,), (1,)) and shares.shares.tolist() == [[share], [share]], "windows that all have"


def test_slices_are_taken_where_the_trace_is_one_window() -> None:
    slices = (Slice(0.5, 0.2, 0.3, 0.0), Slice(0.7, 0.1, 0.1, 0.1))
    shares = heat(group([rank(0, window(10), slices=slices)]), "waiting", Bounds(8, 2, 8))
    assert shares.shares.tolist() == [[0.3, 0.1]] and shares.spread == ((0.1, 0.2, 0.3),)


def test_many_ranks_share_bands_and_the_latest_have_a_row_each() -> None:
    ranks = [rank(n, window(n), late_ns=int(n == 3)) for n in range(7)]
    shares = heat(group(ranks), "waiting", Bounds(rows=4, single=1, columns=8))
    assert shares.members == ((3,), (0, 1), (2, 4), (5, 6))
    assert shares.shares[:, 0].tolist() == pytest.approx([0.03, 0.005, 0.03, 0.055])


def test_more_windows_than_columns_become_means() -> None:
    waiting = np.arange(20)
    shares = heat(group([rank(0, *(window(int(ns)) for ns in waiting))]), "waiting", Bounds(8, 2, 5))
    assert shares.shares[0].tolist() == pytest.approx((waiting.reshape(5, 4).mean(axis=1) / 100).tolist())
