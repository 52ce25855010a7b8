"""A program under torch.profiler runs and ends as under Python itself: each case is run both ways and compared.

What torch itself does not matter for that: a module that stands for it is imported in a tenth of a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = "import torch\n"
TORCH = """
import json, types
cuda = types.SimpleNamespace(is_available=lambda: False)
_C = types.SimpleNamespace(_profiler=types.SimpleNamespace(_ExperimentalConfig=lambda **options: None))
"""
PROFILER = """
import json
class ProfilerActivity: CPU = CUDA = 1
class profile:
    def __init__(self, **options): self.log = []
    def start(self): self.log.append("start")
    def stop(self): self.log.append("stop")
    def export_chrome_trace(self, path):
        with open(path, "w") as file: json.dump(self.log, file)
        with open("exports", "a") as file: file.write("x")
"""
WORKER = [sys.executable, "-P", "-m", "moeprof.worker", "run", "--out", "t.json", "--"]
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "arguments": ("import sys\nprint(sys.argv, __name__, __file__, __spec__)\n", ["p.py", "a", "--b"]),
    "imports its neighbour": ("import helper, sys\nprint(helper.VALUE, sys.path[0] != '')\n", ["p.py"]),
    "main guard": ("if __name__ == '__main__':\n    print('guarded')\n", ["p.py"]),
    "exit status": ("import sys\nsys.exit(3)\n", ["p.py"]), "exit text": ("raise SystemExit('sorry')\n", ["p.py"]),
    "exit nothing": ("raise SystemExit\n", ["p.py"]), "exit minus one": ("import sys\nsys.exit(-1)\n", ["p.py"]),
    "raises": ("def f():\n    raise ValueError('planted')\nf()\n", ["p.py"]), "syntax": ("def (:\n", ["p.py"]),
    "own excepthook": ("import sys\nsys.excepthook = lambda *a: print('hook', a[1])\n1/0\n", ["p.py"]),
    "interrupted": ("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time; time.sleep(5)\n", ["p.py"]),
    "terminated": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time; time.sleep(5)\n", ["p.py"]),
    "_exit": ("import os, sys\nprint('gone'); sys.stdout.flush()\nos._exit(7)\n", ["p.py"]),
    "thread": ("import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n", ["p.py"]),
    "atexit": ("import atexit\nVALUE = 5\natexit.register(lambda: print('at exit', VALUE))\n", ["p.py"]),
    "spawned child": ("import multiprocessing as m\ndef w(q): q.put(__name__)\nif __name__ == '__main__':\n    c = m.get_context('spawn'); q = c.Queue(); p = c.Process(target=w, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)\n", ["p.py"]),
    "forked child": ("import os\npid = os.fork()\nif pid == 0:\n    os._exit(4)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n", ["p.py"]),
    "pickles its own class": ("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)\n", ["p.py"]),
    "reads stdin": ("print(input())\n", ["p.py"]), "dataclass": ("from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nprint(A(1))\n", ["p.py"]),
    "module": ("", ["-m", "package.tool", "x"]), "package": ("", ["-m", "package", "y"]), "no module": ("", ["-m", "no_such"]),
    "code": ("", ["-c", WORK + "import sys; print(sys.argv, __name__)", "z"]), "no file": ("", ["absent.py"]),
}  # fmt: skip
WITHOUT_TRACE = ("no module", "no file", "syntax")  # nothing ran


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stub = tmp_path / "stub" / "torch"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(TORCH)
    (stub / "profiler.py").write_text(PROFILER)
    (tmp_path / "helper.py").write_text("VALUE = 7\n")
    (tmp_path / "package").mkdir()
    for name in ("__init__", "tool", "__main__"):
        text = (
            WORK
            + "import sys, os\nprint(os.path.basename(sys.argv[0]), sys.argv[1:], __name__, __package__, __spec__.name)\n"
        )
        (tmp_path / "package" / f"{name}.py").write_text("" if name == "__init__" else text)
    return tmp_path


def ran(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(folder / "stub")}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, input="typed\n", timeout=60, check=False
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs_and_ends_as_under_python(folder: Path, name: str) -> None:
    code, words = PROGRAMS[name]
    future = "from __future__ import annotations\n"
    code = future + WORK + code.removeprefix(future) if code.startswith(future) else WORK + code
    (folder / "p.py").write_text(code)
    alone, profiled = ran(folder, [sys.executable, *words]), ran(folder, WORKER + words)
    assert (profiled.returncode, profiled.stdout) == (alone.returncode, alone.stdout), profiled.stderr
    if name != "no file":
        assert profiled.stderr == alone.stderr
    if name not in WITHOUT_TRACE:
        assert json.loads((folder / "t.json").read_text()) == ["start", "stop"]
        assert (folder / "exports").read_text() == "x", "written once, by this process alone"


def test_the_recording_begins_and_ends_by_signals(folder: Path) -> None:
    """The real torch."""
    pytest.importorskip("torch", reason="torch is not installed")
    code = "import time, torch\nprint('up', flush=True)\nfor i in range(400):\n    torch.ones(4).sum(); time.sleep(0.01)\nprint('done')\n"
    (folder / "p.py").write_text(code)
    command = [*WORKER[:-1], "--later", "--", "p.py"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGRTMIN + 4)
        time.sleep(1)
        process.send_signal(signal.SIGRTMIN + 5)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0
    events = json.loads((folder / "t.json").read_text())["traceEvents"]
    sums = [event for event in events if event["name"] == "aten::sum"]
    assert 20 < len(sums) < 250, "about a second of four"


def test_without_a_program_it_says_how(folder: Path) -> None:
    said = ran(folder, [sys.executable, "-P", "-m", "moeprof.worker", "run"])
    assert said.returncode == 2 and "no program was given" in said.stderr
