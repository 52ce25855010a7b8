"""What a program's capture is called, and how its Python command line is taken apart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moeprof.capture.program import interpreter
from moeprof.capture.program.name import program_name, python_command, script_of


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("python hf_mixtral.py --fast", "hf_mixtral"), ("python3.11 -u -X dev run/gen.v2.py", "gen.v2"),
        ("./train.py", "train"), ("python -m vllm.entrypoints.openai.api_server --port 1", "api_server"),
        ("python -m pkg.__main__", "pkg"), ("python -c print(1)", "python"), ("torchrun --nproc-per-node 2 train.py a.py", "train"),
        ("torchrun --standalone -m pkg.train", "train"), ("accelerate launch --config c.yaml sd.py", "sd"),
        ("bash run.sh 3", "run"), ("bash -c 'X=1 exec python gen.py 3'", "gen"), ("bash -lc ./a.out", "a"),
        ("env A=1 python -m pkg.gen", "gen"), ("mpirun -n 2 ./bench", "bench"), ("numactl -N 0 python x.py", "x"),
        ("vllm serve model", "vllm"), ("./a.out -n 3", "a"), ("/usr/bin/nbody", "nbody"), ("timeout 60 ./bench", "bench"),
        ("uv run gen.py", "gen"), ("'./my prog' x", "my_prog"), ("python", "python"), ("./...", "program"),
    ],
)  # fmt: skip
def test_a_capture_is_named_after_the_script(words: str, name: str) -> None:
    import shlex

    assert program_name(tuple(shlex.split(words))) == name


def test_a_python_command_is_taken_apart() -> None:
    found = python_command(("python3", "-W", "ignore", "-u", "-m", "pkg.mod", "-c", "x"))
    assert found is not None and (found.kind, found.target, found.args) == ("module", "pkg.mod", ("-c", "x"))
    assert found.options == ("-W", "ignore", "-u") and found.words == ("-m", "pkg.mod", "-c", "x")
    assert python_command(("./train",)) is None and python_command(("python", "-i")) is None
    assert python_command(("pythonic", "x.py")) is None


def test_the_script_is_found_behind_a_launcher(tmp_path: Path) -> None:
    script = tmp_path / "t.py"
    script.touch()
    assert script_of(("torchrun", "--n", "2", str(script))) == script
    assert script_of(("python", str(script), "x")) == script and script_of(("python", "-m", "json")) is None


def test_the_programs_own_python_is_asked_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '9.9'\ncuda: 'Optional[str]' = '13.7'\n")
    fake = tmp_path / "python3"
    fake.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    found = interpreter.of_program((str(fake), "x.py"), ("numpy", "no-such-package"))
    assert found is not None and found.cuda == "13.7" and found.torch and found.moeprof
    assert set(found.packages) == {"numpy"} and found.python.startswith("3.")
    launcher = tmp_path / "torchrun"
    launcher.write_text(f"#!{fake}\n")
    launcher.chmod(0o755)
    launched = interpreter.of_program((str(launcher), "x.py"), ("numpy",))
    assert launched is not None
    assert interpreter.of_program(("/bin/true",), ()) is None
    fake.write_text("#!/bin/sh\nexit 3\n")
    assert interpreter.of_program((str(fake), "x.py"), ()) is None
