"""A capture over two network namespaces of this machine, joined by a cable that can be pulled; opt-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.command_line import FAKES, whole
from fakes.hosts import QUICK, all_ended, launched

if os.environ.get("MOEPROF_TEST_NETNS") != "1":
    pytest.skip("set MOEPROF_TEST_NETNS=1 to make network namespaces, which takes root", allow_module_level=True)

AHEAD_NS = 5_000_000_000
CPU = ("--device", "cpu", *QUICK)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two namespaces, at 10.77.0.1 and 10.77.0.2."""
    names = (f"moeprof-a{os.getpid()}", f"moeprof-b{os.getpid()}")
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and ip")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable1", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"cable{number}")
            ip("-n", name, "link", "set", f"cable{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


def over(cable: tuple[str, str]) -> dict[str, object]:
    """How captures run on either end, the second with a clock of its own."""
    changes = {host: {"GLOO_SOCKET_IFNAME": f"cable{host}", "MASTER_ADDR": "10.77.0.1"} for host in (0, 1)}
    changes[1] |= {"PYTHONPATH": str(FAKES / "clocksite"), "FAKE_AHEAD_NS": str(AHEAD_NS)}
    return {"within": {h: ("ip", "netns", "exec", name) for h, name in enumerate(cable)}, "changes": changes}


def test_a_capture_over_a_cable(cable: tuple[str, str], tmp_path: Path) -> None:
    with launched(tmp_path, words=CPU, **over(cable)) as run:
        all_ended(run.wait(), [0, 0])
    far = whole(tmp_path / "cap").variants[0].ranks[1]
    assert far.clock_offset_ns is not None and far.host == 1
    assert abs(far.clock_offset_ns - AHEAD_NS) <= far.clock_uncertainty_ns < 50_000_000


def test_a_cable_that_is_pulled_ends_both_sides(cable: tuple[str, str], tmp_path: Path) -> None:
    log = tmp_path / "cap.partial" / "logs" / "chunked-clean.log"
    words = (*CPU, "--tools", "none", "--timeout", "90")
    with launched(tmp_path, words=words, common={"RANKED": "hang:0"}, **over(cable)) as run:
        until = time.monotonic() + 60
        while "about to hang" not in (log.read_text() if log.is_file() else ""):
            assert time.monotonic() < until and run.running[0].poll() is None, run.said(0)
            time.sleep(0.05)
        ip("-n", cable[0], "link", "set", "cable0", "down")
        all_ended(run.wait(), [5, 5])
        assert "rank 1 of 2 (host 1) died in the proof (nothing was heard of its host for 20 s)" in run.error(0)
        assert "nothing is heard of the capture of rank 0" in run.error(1)
