"""Each script of scripts/ prints its usage on this machine; what it imports exists, also in code that it keeps as text."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

SCRIPTS = ROOT / "scripts"
NOT_A_COMMAND = "not a command."
MODULES = (
    "communication_faults", "copy_faults", "device_faults", "fault_parts", "host_faults", "interleaved_timing", "loading_faults", "nsys_reports",
)  # fmt: skip
COMMANDS = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in MODULES)
IMPORT = re.compile(r"^\s*from (moeprof[\w.]*) import ([\w, ]+)$", re.MULTILINE)
# one process for all scripts: torch and pandas are imported once; no folder but that of the scripts is on the path
HELP = """
import contextlib, io, json, runpy, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    sys.argv, out, status = [f"{folder}/{name}.py", "--help"], io.StringIO(), "no exit"
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException as error:
        status = f"{type(error).__name__}: {error}"
    print(json.dumps({"name": name, "status": status, "out": out.getvalue()}))
"""


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str | int]]:
    """What each command printed for --help, and its exit status."""
    pytest.importorskip("torch", reason="torch is not installed")
    child = subprocess.run(
        [sys.executable, "-P", "-c", HELP, str(SCRIPTS), *COMMANDS], capture_output=True, text=True, check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )  # fmt: skip
    return {line["name"]: line for line in map(json.loads, child.stdout.splitlines())}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_its_usage(name: str, helps: dict[str, dict[str, str | int]]) -> None:
    assert helps[name]["status"] == 0
    assert "usage: " in str(helps[name]["out"])
    docstring = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")))
    assert docstring and "\nusage: " in docstring


@pytest.mark.parametrize("name", MODULES)
def test_a_shared_module_is_not_a_command_and_names_its_user(name: str) -> None:
    text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert docstring.endswith(NOT_A_COMMAND) and "__main__" not in text


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_a_shell_script_prints_its_usage(path: Path) -> None:
    child = subprocess.run(["bash", path, "--help"], capture_output=True, text=True, check=False)
    assert child.returncode == 0 and f"usage: {path.name} " in child.stdout


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.*")), ids=lambda path: path.name)
def test_what_a_script_imports_from_moeprof_exists(path: Path) -> None:
    for module, names in IMPORT.findall(path.read_text(encoding="utf-8")):
        if module.startswith("moeprof.workloads"):
            pytest.importorskip("torch", reason="torch is not installed")
            if "split_kv" in module:
                pytest.importorskip("triton", reason="triton is not installed")
        imported = importlib.import_module(module)
        for name in (word.split(" as ")[0].strip() for word in names.split(",")):
            assert hasattr(imported, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module} lacks {name}"
