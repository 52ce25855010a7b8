"""What disturbs a round and what is a condition of the run; the readings of NVML and of the CPU that this rests on."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from paths import FAKES

from moeprof.capture import disturbance
from moeprof.capture.disturbance import CLOCK, CPU, OTHER, Judged
from moeprof.machine import load, nvml
from moeprof.storage.manifest import Environment, Gpu, Round

MACHINE = Environment("0", "3", "Linux", "cpu", 8)


def phase(index: int, *reasons: str, clock: int = 1980, others: int = 0, cores: float = 0.0) -> Round:
    state = Gpu(0, "GPU", sm_clock_mhz=clock, throttle_reasons=reasons, other_processes=others)
    return Round(index, 0, (1000,), state, cores)


def judged(*phases: Round, device: str = "cuda", **others: tuple[Round, ...]) -> Judged:
    return disturbance.judge({"a": phases, **others}, MACHINE, device)


def marks(found: Judged, name: str = "a") -> dict[int, tuple[str, ...]]:
    return {r.index: r.disturbed for r in found.phases[name] if r.disturbed}


def test_a_quiet_run_is_left_as_it_is() -> None:
    rounds = tuple(phase(i, clock=1980 - 15 * (i % 4)) for i in range(12))
    found = judged(*rounds)
    assert (
        found.phases["a"] == rounds and found.used == 12 and not found.conditions and not disturbance.notes(found, 12)
    )


@pytest.mark.parametrize("reason", [name for name in nvml.THROTTLES.values() if name != nvml.POWER_CAP])
def test_a_reason_in_some_phases_disturbs_those_and_in_most_is_a_condition(reason: str) -> None:
    some = judged(*(phase(i, *([reason] if i in (3, 7) else [])) for i in range(12)))
    assert marks(some) == {3: (reason,), 7: (reason,)} and some.used == 10 and not some.conditions
    (said,) = disturbance.notes(some, 12)
    assert said.id == "rounds-left-out" and f"2 of 12 rounds were disturbed ({reason} in 2)" in said.text
    most = judged(*(phase(i, *([reason] if i > 2 else [])) for i in range(12)))
    assert not marks(most) and most.used == 12
    (said,) = disturbance.notes(most, 12)
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
        assert [n.id for n in disturbance.notes(found, 12)] == (["power-capped"] if count == 12 else [])


def test_a_clock_far_below_that_of_the_same_variant_disturbs_and_that_of_another_does_not() -> None:
    slow = tuple(phase(i, "power cap", clock=1500) for i in range(8))
    found = judged(*(phase(i, clock=1980) for i in range(8)), b=slow)
    assert found.used == 8, "each variant has its own clock under the cap"
    capped = judged(*(phase(i, "power cap", clock=1200 if i == 2 else 1500 + 30 * i) for i in range(8)))
    assert capped.used == 8, "the cap explains what it did to the clock"
    fell = judged(
        *(phase(i, *([] if i == 2 else ["power cap"]), clock=1200 if i == 2 else 1500 + 30 * i) for i in range(8))
    )
    assert marks(fell) == {2: (CLOCK,)}


def test_the_gpus_of_all_ranks_are_watched_each_against_itself() -> None:
    """Rank 1's clock stands lower all the time, which is its own; what happens to it once disturbs the round and is told as its."""

    def pair(index: int, *reasons: str, clock: int = 1500) -> Round:
        return replace(phase(index), rank_gpus=(Gpu(1, "GPU", sm_clock_mhz=clock, throttle_reasons=reasons),))

    quiet = judged(*(pair(i) for i in range(8)))
    assert quiet.used == 8 and not quiet.conditions
    fell = judged(*(pair(i, clock=1200 if i == 2 else 1500) for i in range(8)))
    assert marks(fell) == {2: (f"{CLOCK} (GPU of rank 1)",)}
    hot = judged(*(pair(i, *(["thermal (hardware)"] if i == 5 else ["power cap"])) for i in range(8)))
    assert marks(hot) == {5: ("thermal (hardware) (GPU of rank 1)",)}
    said = disturbance.notes(hot, 8)
    assert [n.id for n in said] == ["rounds-left-out", "power-capped"] and "a 7 of 8 (GPU of rank 1)" in said[1].text


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
    again = disturbance.judge(
        {"a": (*early.phases["a"], *(phase(i, "thermal (software)") for i in range(5, 12)))}, MACHINE, "cuda"
    )
    assert not marks(again) and again.used == 12


@pytest.fixture
def fake_nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("pynvml", FAKES / "site" / "pynvml.py")
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
    found = nvml.gpu(own_pids=own)
    assert found is not None and found.other_processes == others


def test_readings_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(busy_s: float, own_s: float) -> load.Reading:
        times = SimpleNamespace(
            user=busy_s, nice=0.0, system=1.0, idle=50.0, iowait=7.0, irq=0.0, softirq=0.0, steal=0.0
        )
        monkeypatch.setattr(psutil, "cpu_times", lambda: times)
        monkeypatch.setattr(psutil, "Process", process(own_s, 100))
        found = load.read([7, 8])
        assert found is not None
        return found

    def process(own_s: float, resident_bytes: int) -> Callable[[int], Any]:
        def one(pid: int) -> Any:
            if pid != 7:
                raise psutil.NoSuchProcess(pid)
            return SimpleNamespace(
                cpu_times=lambda: SimpleNamespace(user=own_s, system=0.5), memory_info=lambda: SimpleNamespace(rss=resident_bytes)
            )  # fmt: skip

        return one

    before, after = read(10.0, 2.0), read(13.0, 3.0)
    assert (before.busy_s, before.own_s) == (11.0, 2.5), (
        "idle and waiting for input are not busy; an ended process is 0"
    )
    assert load.others_cores(replace(before, at_s=1.0), replace(after, at_s=3.0)) == pytest.approx(1.0)
    assert load.others_cores(replace(before, at_s=1.0), replace(after, at_s=1.01)) is None, "a tick would be a core"
    assert load.others_cores(None, after) is None
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200))
    assert load.has_room(7, 0.6) and not load.has_room(7, 0.5)
    assert not load.has_room(8, 1.0)


def test_this_machine_gives_a_reading() -> None:
    reading = load.read([os.getpid()])
    assert reading is not None and reading.busy_s > reading.own_s > 0
    assert load.available_bytes() and load.has_room(os.getpid(), 1.0)


def test_a_system_that_reports_nothing_gives_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError("no /proc here")

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    assert load.read([os.getpid()]) is None and load.available_bytes() is None
    assert not load.has_room(os.getpid(), 1.0)
