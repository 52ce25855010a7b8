"""Stands for ``python -P -m moeprof``: a fork of one warm process runs the command, and spares a second of imports each time.

The fork is a process of its own, with the command's environment, folder, exit code and children. What only a fresh interpreter
proves (imports, start-up, signals) is left to tests that start one: tests/unit/cli/test_cli.py, tests/docs, test_capture_failures.
As a command this file is the warm process. It reads one JSON request a line from stdin and writes one exit status a line to stdout.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

COLD = ("torch", "pynvml", "nvtx")  # which tests replace through PYTHONPATH
OWN = ("moeprof.workloads", "moeprof.testing", "moeprof.worker.", "moeprof.__main__")  # of other processes
HEAVY = ("pandas", "plotly.graph_objects", "jinja2", "rich.console", "rich.table", "rich.progress", "pyarrow", "adbc_driver_sqlite.dbapi")  # fmt: skip


class Forks:
    """The warm process of this test process; started on first use."""

    process: subprocess.Popen[bytes] | None = None

    def run(
        self, words: list[str], cwd: Path, env: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """What ``subprocess.run`` of the command with captured output returns."""
        with tempfile.TemporaryDirectory(prefix="moeprof-fork-") as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {"words": words, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err)}
            status = self._ask(json.dumps(request), timeout_s)
            if status is None:
                raise subprocess.TimeoutExpired(words, timeout_s, out.read_text(), err.read_text())
            return subprocess.CompletedProcess(words, status, out.read_text(), err.read_text())

    def _ask(self, request: str, timeout_s: float) -> int | None:
        """The exit status; None if the command ran past its time and was killed."""
        process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request.encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], timeout_s)[0]:
            self.end()
            return None
        reply = process.stdout.readline()
        assert reply, "the warm process ended"
        return int(reply)

    def _start(self) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True
        )  # fmt: skip
        return self.process

    def end(self) -> None:
        """End the warm process and the command that it may be running."""
        process, self.process = self.process, None
        if process is None:
            return
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


FORKS = Forks()
atexit.register(FORKS.end)


def main() -> None:
    """The warm process; in a fork this returns when the command has ended."""
    import moeprof

    for module in pkgutil.walk_packages(moeprof.__path__, "moeprof."):
        if not module.name.startswith(OWN):
            importlib.import_module(module.name)
    for name in HEAVY:
        with suppress(ImportError):  # an extra
            importlib.import_module(name)
    assert not sys.modules.keys() & set(COLD), "these are to be found through the command's own PYTHONPATH"
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            command(request)
            return
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def command(request: dict) -> None:
    """Become the command: its environment, folder, output and path of modules, as a fresh interpreter would."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, request["out"], os.O_WRONLY | os.O_CREAT), (2, request["err"], os.O_WRONLY | os.O_CREAT)):  # fmt: skip
        source = os.open(path, flags | os.O_APPEND, 0o600)
        os.dup2(source, target)
        os.close(source)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- the warm process's own has read ahead
    added = [entry for entry in request["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = added
    for file in [file for entry in added if (file := Path(entry, "sitecustomize.py")).is_file()][:1]:
        runpy.run_path(str(file))
    sys.argv = ["moeprof", *request["words"]]
    runpy.run_module("moeprof", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
