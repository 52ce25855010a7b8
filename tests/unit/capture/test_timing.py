"""Rounds of clean timing: their order, when they end, and what a worker that dies takes along."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moeprof.capture import disturbance
from moeprof.capture.disturbance import OTHER, Judged
from moeprof.capture.progress import Silent
from moeprof.capture.request import Request
from moeprof.capture.rounds import REPEATS, Timing, Workers
from moeprof.errors import MoeprofError, WorkloadError
from moeprof.stats import verdict as verdicts
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Environment, Manifest, VariantRecord
from moeprof.worker import messages

MACHINE = Environment("0", "3", "Linux", "cpu", 8)


class Clocked:
    """Stands for a worker: answers at once with the times that it is given, round by round."""

    def __init__(self, times: Callable[[int], float]) -> None:
        self.times, self.asked = times, 0
        self.process, self.rank_pids = type("P", (), {"pid": os.getpid()}), ()

    def ask(self, request: messages.Round) -> messages.Timed:
        self.asked += 1
        return messages.Timed((round(self.times(self.asked - 1)),) * 3)


def timing(tmp_path: Path, request: Request, **workers: Clocked) -> Timing:
    names = [name for name in workers if name != "twin"]
    records = tuple(VariantRecord(name, "", "pending") for name in names)
    manifest = Manifest(1, "workload", "w", "", (), "cpu", MACHINE, baseline="base", seed=3, variants=records)
    store = Store(tmp_path / "cap", manifest)
    store.open()
    servers: dict[str, Any] = {name: workers[name] for name in names}

    def failed(name: str, error: MoeprofError) -> None:
        servers.pop(name)

    twin: Any = workers.get("twin")
    return Timing(request, store, Silent(), Workers(servers, twin, None), failed)


def steady(time: float) -> Callable[[int], float]:
    return lambda index: time * (1 + 0.001 * (index % 3))


def test_a_clear_verdict_ends_at_the_first_look(tmp_path: Path) -> None:
    found = timing(tmp_path, Request(), base=Clocked(steady(1e6)), fast=Clocked(steady(9e5)), twin=Clocked(steady(1e6)))
    found.run()
    base, fast = found.store.manifest.variants
    assert len(base.rounds) == len(base.twin) == len(fast.rounds) == verdicts.LOOKS[0] and not fast.twin
    assert found.store.manifest.looks == len(verdicts.LOOKS)


def test_an_unclear_one_goes_on_to_the_next_look_and_to_the_last(tmp_path: Path) -> None:
    """No look between: eleven rounds, or thirteen, do not end it."""
    late = Clocked(lambda index: 1e6 if index < verdicts.LOOKS[0] // 2 else 9e5)
    found = timing(tmp_path, Request(), base=Clocked(steady(1e6)), fast=late, twin=Clocked(steady(1e6)))
    found.run()
    assert late.asked in verdicts.LOOKS[1:]
    coin = Clocked(lambda index: 1e6 if index % 2 else 1.3e6)
    found = timing(tmp_path / "b", Request(), base=Clocked(steady(1e6)), fast=coin, twin=Clocked(steady(1e6)))
    found.run()
    assert coin.asked == verdicts.LOOKS[-1]


def test_a_spent_budget_ends_it_and_a_number_of_rounds_is_kept_to(tmp_path: Path) -> None:
    found = timing(tmp_path, Request(budget_s=1e-9), base=Clocked(steady(1e6)), fast=Clocked(steady(9e5)))
    found.run()
    assert len(found.store.manifest.variants[0].rounds) == 1
    found = timing(tmp_path / "b", Request(rounds=5), base=Clocked(steady(1e6)), fast=Clocked(steady(9e5)))
    found.run()
    base = found.store.manifest.variants[0]
    assert len(base.rounds) == len(base.twin) == 5 and found.store.manifest.looks == 1


@pytest.mark.parametrize(
    ("variants", "request_", "seconds"),
    [(2, Request(), 0.25), (3, Request(), 0.25), (6, Request(), 40 / 210 - 0.04), (19, Request(), 0.1), (6, Request(rounds=9), 0.25)],
)  # fmt: skip
def test_phases_are_shorter_where_a_budget_would_hold_too_few_rounds(
    tmp_path: Path, variants: int, request_: Request, seconds: float
) -> None:
    others = {f"v{i}": Clocked(steady(1e6)) for i in range(variants - 1)}
    found = timing(tmp_path, request_, base=Clocked(steady(1e6)), **others)
    assert found.seconds() == pytest.approx(seconds)


def test_orders_are_balanced(tmp_path: Path) -> None:
    found = timing(
        tmp_path, Request(rounds=40), base=Clocked(steady(1e6)), a=Clocked(steady(1e6)), b=Clocked(steady(1e6))
    )
    found.run()
    base, a, b = found.store.manifest.variants
    for first, second in zip(base.rounds[::2], base.rounds[1::2], strict=True):
        assert first.position + second.position == 3, "every second round runs backwards"
    for record in (base, a, b):
        assert sum(r.position for r in record.rounds) == 60
    after = sum(x.position == y.position + 1 for x, y in zip(a.rounds, base.rounds, strict=True))
    assert 3 <= after <= 17, "a does not always run right after the baseline"


def test_disturbed_rounds_are_repeated_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disturbs(*which: int) -> None:
        def judge(phases: disturbance.Phases, *_: object) -> Judged:
            marked = {
                name: tuple(
                    replace(r, disturbed=(OTHER,) * (r.index in which), used=r.index not in which) for r in rounds
                )
                for name, rounds in phases.items()
            }
            return Judged(marked, ())

        monkeypatch.setattr(disturbance, "judge", judge)

    disturbs(1, 2)
    found = timing(tmp_path, Request(rounds=4), base=Clocked(steady(1e6)), fast=Clocked(steady(9e5)))
    found.run()
    assert [r.used for r in found.store.manifest.variants[1].rounds] == [True, False, False, True, True, True]
    assert "2 of 6 rounds were disturbed" in found.store.manifest.notes[0].text
    disturbs(*range(99))
    found = timing(tmp_path / "b", Request(rounds=4), base=Clocked(steady(1e6)), fast=Clocked(steady(9e5)))
    found.run()
    assert len(found.store.manifest.variants[1].rounds) == REPEATS * 4


class Breaks(Clocked):
    """A worker that dies in its third round."""

    def ask(self, request: messages.Round) -> messages.Timed:
        if self.asked == 2:
            raise WorkloadError("it died", "")
        return super().ask(request)


def test_a_worker_that_dies_takes_only_itself_along(tmp_path: Path) -> None:
    def run(name: str, **workers: Clocked) -> Manifest:
        found = timing(tmp_path / name, Request(rounds=4), **workers)
        found.run()
        return found.store.manifest

    one = lambda: Clocked(steady(1e6))  # noqa: E731
    lost_twin = run("twin", base=one(), fast=one(), twin=Breaks(steady(1e6)))
    assert [len(v.rounds) for v in lost_twin.variants] == [4, 4] and len(lost_twin.variants[0].twin) == 2
    assert [n.id for n in lost_twin.notes] == ["no-twin"]
    lost = run("fast", base=one(), fast=Breaks(steady(1e6)), twin=one())
    assert [len(v.rounds) for v in lost.variants] == [4, 2] and len(lost.variants[0].twin) == 4
    lost_base = run("base", base=Breaks(steady(1e6)), fast=one(), twin=one())
    assert [len(v.rounds) for v in lost_base.variants] == [2, 4] and len(lost_base.variants[0].twin) <= 3
