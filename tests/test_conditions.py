"""What disturbs a round and what is a condition of the run; the readings of NVML and of the CPU that this rests on."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moeprof import nvml, stats
from moeprof.capture import conditions, host
from moeprof.capture.conditions import CLOCK, CPU, OTHER, Judged
from moeprof.capture.plan import Request
from moeprof.capture.progress import Silent
from moeprof.capture.store import Store
from moeprof.capture.timing import REPEATS, Timing, Workers
from moeprof.errors import MoeprofError, WorkloadError
from moeprof.manifest import Environment, Gpu, Manifest, Round, VariantRecord

HERE = Path(__file__).resolve().parent
MACHINE = Environment("0", "3", "Linux", "cpu", 8)


def phase(index: int, *reasons: str, clock: int = 1980, others: int = 0, cores: float = 0.0) -> Round:
    state = Gpu(0, "GPU", sm_clock_mhz=clock, throttle_reasons=reasons, other_processes=others)
    return Round(index, 0, (1000,), state, cores)


def judged(*phases: Round, device: str = "cuda", **others: tuple[Round, ...]) -> Judged:
    return conditions.judge({"a": phases, **others}, MACHINE, device)


def marks(found: Judged, name: str = "a") -> dict[int, tuple[str, ...]]:
    return {r.index: r.disturbed for r in found.phases[name] if r.disturbed}


def test_a_quiet_run_is_left_as_it_is() -> None:
    rounds = tuple(phase(i, clock=1980 - 15 * (i % 4)) for i in range(12))
    found = judged(*rounds)
    assert found.phases["a"] == rounds and found.used == 12 and not found.conditions and not conditions.notes(found, 12)


@pytest.mark.parametrize("reason", [name for name in nvml.THROTTLES.values() if name != nvml.POWER_CAP])
def test_a_reason_in_some_phases_disturbs_those_and_in_most_is_a_condition(reason: str) -> None:
    some = judged(*(phase(i, *([reason] if i in (3, 7) else [])) for i in range(12)))
    assert marks(some) == {3: (reason,), 7: (reason,)} and some.used == 10 and not some.conditions
    (said,) = conditions.notes(some, 12)
    assert said.id == "rounds-left-out" and f"2 of 12 rounds were disturbed ({reason} in 2)" in said.text
    most = judged(*(phase(i, *([reason] if i > 2 else [])) for i in range(12)))
    assert not marks(most) and most.used == 12
    (said,) = conditions.notes(most, 12)
    assert (
        said.id == "condition"
        and said.severity == "warning"
        and f"{reason} held" in said.text
        and "a 9 of 12" in said.text
    )


def test_the_power_cap_is_a_condition_however_often_it_holds() -> None:
    for count in (1, 5, 12):
        found = judged(*(phase(i, *(["power cap"] if i < count else [])) for i in range(12)))
        assert found.used == 12 and not marks(found)
        assert [n.id for n in conditions.notes(found, 12)] == (["power-capped"] if count == 12 else [])


def test_a_clock_far_below_that_of_the_same_variant_disturbs_and_that_of_another_does_not() -> None:
    slow = tuple(phase(i, "power cap", clock=1500) for i in range(8))
    found = judged(*(phase(i, clock=1980) for i in range(8)), b=slow)
    assert found.used == 8, "each variant has its own clock under the cap"
    fell = judged(*(phase(i, "power cap", clock=1200 if i == 2 else 1500 + 30 * i) for i in range(8)))
    assert marks(fell) == {2: (CLOCK,)}


def test_a_round_that_disturbs_one_variant_does_not_count_for_any() -> None:
    found = judged(*(phase(i, others=int(i == 4)) for i in range(8)), b=tuple(phase(i) for i in range(8)))
    assert marks(found) == {4: (OTHER,)} and not marks(found, "b")
    assert [r.index for r in found.phases["b"] if not r.used] == [4] and found.left_out == {4: (OTHER,)}


def test_work_on_the_cpu_disturbs_where_the_cpu_is_timed_and_rises() -> None:
    busy = tuple(phase(i, cores=4.0 if i == 1 else 1.0) for i in range(8))
    assert marks(judged(*busy, device="cpu")) == {1: (CPU,)} and not marks(judged(*busy))
    full = judged(*(phase(i, cores=6.0) for i in range(8)), device="cpu")
    assert not marks(full) and [c.state for c in full.conditions] == [CPU]
    assert not judged(*(phase(i, cores=1.0) for i in range(8)), device="cpu").conditions


def test_marks_are_judged_anew_each_time() -> None:
    """What looked like a disturbance in the first rounds is a condition once it stays."""
    early = judged(*(phase(i, *(["thermal (software)"] if i > 2 else [])) for i in range(5)))
    assert marks(early).keys() == {3, 4}
    again = conditions.judge(
        {"a": (*early.phases["a"], *(phase(i, "thermal (software)") for i in range(5, 12)))}, MACHINE, "cuda"
    )
    assert not marks(again) and again.used == 12


@pytest.fixture
def fake_nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("pynvml", HERE / "fakes" / "site" / "pynvml.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_the_state_of_the_gpu_that_the_workers_use(fake_nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = nvml.gpu("aaaa-bbbb")
    assert found is not None and (found.power_limit_w, found.ecc, found.mig) == (700.0, True, None)
    assert found.throttle_reasons == ("power cap",) and found.temperature_c is None
    asked = []
    monkeypatch.setattr(fake_nvml, "nvmlDeviceGetHandleByUUID", lambda uuid: asked.append(uuid) or 0)
    nvml.gpu("cccc")
    nvml.gpu("MIG-dddd")
    assert asked == ["GPU-cccc", "MIG-dddd"]


def test_reasons_by_either_name_and_none_of_those_that_are_settings(
    fake_nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fake_nvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda handle: 0x1 | 0x2 | 0x100, raising=False
    )
    found = nvml.gpu()
    assert found is not None and found.throttle_reasons == ()
    monkeypatch.setattr(fake_nvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda handle: 0x48, raising=False)
    found = nvml.gpu()
    assert found is not None and found.throttle_reasons == ("hardware slowdown", "thermal (hardware)")


@pytest.mark.parametrize(
    ("pids", "own", "others"),
    [((10, 11), (10, 11), 0), ((10, 11, 99), (10, 11), 1), ((900, 901), (1, 2), 0), ((900, 901, 902), (1, 2), 1), ((), (1, 2), 0)],
)  # fmt: skip
def test_our_own_processes_are_no_others_in_any_namespace(
    fake_nvml: Any, monkeypatch: pytest.MonkeyPatch, pids: tuple[int, ...], own: tuple[int, ...], others: int
) -> None:
    listed = [type("P", (), {"pid": pid}) for pid in pids]
    monkeypatch.setattr(fake_nvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: listed)
    found = nvml.gpu(own=own)
    assert found is not None and found.other_processes == others


def test_readings_of_the_cpu(tmp_path: Path) -> None:
    def write(busy: int, own: int) -> host.Reading:
        (tmp_path / "stat").write_text(f"cpu {busy} 0 100 5000 77 0 0 0 0 0\ncpu0 1 2 3\n")
        (tmp_path / "7").mkdir(exist_ok=True)
        (tmp_path / "7" / "stat").write_text(f"7 (a b) c) S {' '.join(['0'] * 10)} {own} 10 0 0\n")
        found = host.read([7, 8], tmp_path)
        assert found is not None
        return found

    before, after = write(1000, 200), write(1000 + 3 * host.TICKS, 200 + host.TICKS)
    assert host.others_cores(replace(before, at_s=1.0), replace(after, at_s=3.0)) == pytest.approx(1.0)
    assert host.others_cores(replace(before, at_s=1.0), replace(after, at_s=1.01)) is None, "a tick would be a core"
    assert host.others_cores(None, after) is None and host.read([7], tmp_path / "nowhere") is None
    (tmp_path / "7" / "statm").write_text("900 100 50\n")
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {100 * host.PAGE * 2 // 1024} kB\n")
    assert host.has_room(7, 0.6, tmp_path) and not host.has_room(7, 0.5, tmp_path)
    assert not host.has_room(8, 1.0, tmp_path)
    mine = host.read([os.getpid()])
    assert mine is None or mine.busy_s > mine.own_s > 0


class Clocked:
    """Stands for a worker: answers at once with the times that it is given, round by round."""

    def __init__(self, times: Callable[[int], float]) -> None:
        self.times, self.asked = times, 0
        self.process = type("P", (), {"pid": os.getpid()})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        return {"times_ns": [round(self.times(self.asked - 1))] * 3}


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
    assert len(base.rounds) == len(base.twin) == len(fast.rounds) == stats.LOOKS[0] and not fast.twin
    assert found.store.manifest.looks == len(stats.LOOKS)


def test_an_unclear_one_goes_on_to_the_next_look_and_to_the_last(tmp_path: Path) -> None:
    """No look between: eleven rounds, or thirteen, do not end it."""
    late = Clocked(lambda index: 1e6 if index < stats.LOOKS[0] // 2 else 9e5)
    found = timing(tmp_path, Request(), base=Clocked(steady(1e6)), fast=late, twin=Clocked(steady(1e6)))
    found.run()
    assert late.asked in stats.LOOKS[1:]
    coin = Clocked(lambda index: 1e6 if index % 2 else 1.3e6)
    found = timing(tmp_path / "b", Request(), base=Clocked(steady(1e6)), fast=coin, twin=Clocked(steady(1e6)))
    found.run()
    assert coin.asked == stats.LOOKS[-1]


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
        def judge(phases: conditions.Phases, *_: object) -> Judged:
            marked = {
                name: tuple(
                    replace(r, disturbed=(OTHER,) * (r.index in which), used=r.index not in which) for r in rounds
                )
                for name, rounds in phases.items()
            }
            return Judged(marked, ())

        monkeypatch.setattr(conditions, "judge", judge)

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

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
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
