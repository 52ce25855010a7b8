"""Finding tools: the order of places, what does not run, and what the importer of nsys lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from moeprof.errors import ToolError
from moeprof.machine import nvml, tools


def executable(path: Path, says: str = "Version 1.2.3", status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No tool on PATH or in the usual folders but those that a test puts there."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for variable in tools.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tools, "FOLDERS", dict.fromkeys(tools.FOLDERS, (f"{tmp_path}/opt/*/bin",)))
    monkeypatch.setattr(tools, "WHEELS", tmp_path / "wheels")


def test_the_option_beats_the_environment_which_beats_path_which_beats_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tools.find("nsys") is None
    for version in ("9.1", "10.2"):
        executable(tmp_path / "opt" / f"nsight-{version}" / "bin" / "nsys", f"Version {version}.0")
    found = tools.find("nsys")
    assert found is not None and found.version == "10.2.0", "the newest folder, by number and not by letter"
    on_path = executable(tmp_path / "bin" / "nsys", "NVIDIA Nsight Systems version 2025.3.1.0")
    assert tools.find("nsys") == tools.Tool("nsys", on_path, "2025.3.1.0")
    monkeypatch.setenv("MOEPROF_NSYS", str(executable(tmp_path / "env" / "nsys", "Version 3.3")))
    assert (tools.find("nsys") or pytest.fail("none")).version == "3.3"
    assert (
        tools.find("nsys", executable(tmp_path / "mine" / "nsys", "Version 4.4")) or pytest.fail("none")
    ).version == "4.4"


def test_an_nvcc_that_came_as_a_wheel_is_found_after_path_and_before_folders(tmp_path: Path) -> None:
    executable(tmp_path / "opt" / "a" / "bin" / "nvcc", "release 12.1, V12.1")
    for version in ("9", "13"):
        executable(tmp_path / "wheels" / f"cu{version}" / "bin" / "nvcc", f"release {version}.0, V{version}.0.1")
    assert (tools.find("nvcc") or pytest.fail("none")).version == "13.0"
    executable(tmp_path / "bin" / "nvcc", "release 12.9, V12.9")
    assert (tools.find("nvcc") or pytest.fail("none")).version == "12.9"


def test_one_that_does_not_run_is_passed_over_on_path_and_refused_when_named(tmp_path: Path) -> None:
    broken = executable(tmp_path / "bin" / "ncu", status=127)
    executable(tmp_path / "opt" / "a" / "bin" / "ncu", "Version 2025.1")
    assert (tools.find("ncu") or pytest.fail("none")).version == "2025.1"
    with pytest.raises(ToolError, match="does not run"):
        tools.find("ncu", broken)
    with pytest.raises(ToolError, match="does not exist"):
        tools.find("ncu", tmp_path / "nowhere")


def test_no_driver_means_no_gpu_and_no_link() -> None:
    if nvml.gpus():
        pytest.skip("there is a GPU here")
    assert nvml.gpus() == () and nvml.linked() is False


def test_libraries_that_the_importer_lacks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nsys = executable(tmp_path / "nsight" / "target-linux-x64" / "nsys")
    executable(tmp_path / "nsight" / "host-linux-x64" / "QdstrmImporter")
    executable(tmp_path / "bin" / "ldd", "libdw.so.1 => not found")
    assert tools.missing_libraries(nsys) == ("libdw.so.1",)
    executable(tmp_path / "bin" / "ldd", "libdw.so.1 => /lib/libdw.so.1 (0x0)")
    assert tools.missing_libraries(nsys) == ()
    assert tools.missing_libraries(executable(tmp_path / "elsewhere" / "nsys")) == ()
