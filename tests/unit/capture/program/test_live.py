"""What is shown of a program that runs."""

from __future__ import annotations

from pathlib import Path

from moeprof.capture.program import live
from moeprof.capture.program.live import Reading
from moeprof.machine.nvml import Activity


def test_a_reading_names_time_gpus_power_and_size() -> None:
    shown = Reading(12.4, (Activity(0, 87, 412.3), Activity(1, None, None)), 3_500_000, "")
    assert str(shown) == "12 s, GPU 0 87 % busy, 412 W, GPU 1, recorded 3.5 MB"
    assert str(Reading(1.0, (), None, "not recording")) == "1 s, not recording"


def test_many_gpus_are_summed_up() -> None:
    gpus = tuple(Activity(index, 80 + index, 100.0) for index in range(8))
    assert str(Reading(3.0, gpus, None, "")) == "3 s, 8 GPUs 84 % busy (80 to 87), 800 W"


def test_the_size_is_that_of_the_report_once_it_is_there(tmp_path: Path) -> None:
    report = tmp_path / "r.nsys-rep"
    assert live.recorded_bytes(report) is None
    report.write_bytes(b"12345")
    assert live.recorded_bytes(report) == 5
