"""Stands for ``python -P -m moeprof``: a fork of a warm process runs the command, and spares seconds of imports each time.

There are two warm processes. One has imported what a command of moeprof imports; tests give its commands a torch of their own. The
other has torch too. There the processes that a command starts (workers, ranks, the fake nsys) are forks of that command: a worker
imports nothing, and no process imports torch. A fork is a process of its own, with its own number, environment, folder, open
files, signals, exit code and children. What only a fresh interpreter proves (imports, start-up, signals) is left to tests that
start one: tests/unit/cli/test_cli.py, tests/unit/worker/test_run_program.py, test_first_investigation.py, test_program.py.

As a command this file is a warm process. It takes requests from a socket and answers each over a socket of its own: the number of
the process, then its exit status.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAKES = Path(__file__).resolve().parent
COLD = ("torch", "pynvml", "nvtx")  # which tests replace through PYTHONPATH
OWN = ("moeprof.workloads", "moeprof.testing")  # of processes with torch
HEAVY = ("pandas", "plotly.graph_objects", "jinja2", "rich.console", "rich.table", "rich.progress", "pyarrow", "adbc_driver_sqlite.dbapi")  # fmt: skip
TORCH = (
    "torch",
    "torch.distributed",
    "torch.profiler",
    "torch._inductor",
    "numpy",
)  # torch.profiler imports _inductor when it begins
# which a fork can run; the rest needs a fresh interpreter
MODULES = ("moeprof", "moeprof.worker", "moeprof.workloads.expert_parallel", "torch.distributed.run")
FILES = (
    FAKES / "bin" / "nsys",
    FAKES.parent / "rank_processes.py",
    FAKES.parents[2] / "scripts" / "benchmark_expert_parallel.py",
)
FLAGS = ("-P", "-u")
LIMIT_S = 120
PR_SET_NAME = 15


def _gpu() -> bool:
    """Whether CUDA might begin in a warm process, after which no fork can use it."""
    with suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        return True
    return False


@dataclass
class Fork:
    """A running command, with the part of ``subprocess.Popen`` that tests use."""

    args: list[str]
    pid: int
    reply: socket.socket
    stdin: Any = None
    stdout: Any = None
    stderr: Any = None
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        if self.returncode is None and select.select([self.reply], [], [], 0)[0]:
            self.returncode = int(self.reply.recv(64) or -signal.SIGKILL)
            self.reply.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than that.
        """
        if self.poll() is None:
            select.select([self.reply], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it, wait for that, and close its pipes."""
        self.kill()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.wait(LIMIT_S)


@dataclass
class Forks:
    """A warm process of this test process, started on first use."""

    torch: bool = False
    process: subprocess.Popen[bytes] | None = None
    _socket: socket.socket | None = field(default=None, repr=False)

    def run(
        self, words: Sequence[str], cwd: Path, env: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """What ``subprocess.run`` of ``moeprof`` with captured output returns."""
        return self.run_python(("-P", "-m", "moeprof", *words), cwd, env, timeout_s)

    def run_python(
        self, words: Sequence[str], cwd: Path, env: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """What ``subprocess.run`` of Python with captured output returns."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            fork = self.start(words, cwd, env, stdout=out.fileno(), stderr=err.fileno())
            try:
                status = fork.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.end()
                fork.wait(LIMIT_S)
                out.seek(0), err.seek(0)
                raise subprocess.TimeoutExpired(list(words), timeout_s, out.read(), err.read()) from None
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess(list(words), status, out.read(), err.read())

    def start(
        self,
        words: Sequence[str],
        cwd: Path,
        env: dict[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
    ) -> Fork:
        """Run ``python WORDS``; a stream is a file's number, ``subprocess.PIPE`` or ``subprocess.DEVNULL``."""
        argv = [sys.executable, *words]
        assert runnable(argv) is not None, f"no fork can run {argv}"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open("r+") as null, contextlib.ExitStack() as stack:
            files, pipes = [], []
            for number, stream in enumerate((stdin, stdout, stderr)):
                pipe = None
                if stream == subprocess.PIPE:
                    read, write = os.pipe()
                    given, kept = (read, write) if number == 0 else (write, read)
                    stack.callback(os.close, given)
                    pipe = os.fdopen(kept, "w" if number == 0 else "r")  # the caller closes it
                else:
                    given = null.fileno() if stream == subprocess.DEVNULL else stream
                files.append(given)
                pipes.append(pipe)
            request = json.dumps({"argv": argv, "cwd": str(cwd), "env": env}).encode()
            socket.send_fds(self.requests, [request], [theirs.fileno(), *files])
        reply = ours.recv(64)
        assert reply, "the warm process ended"
        return Fork(argv, int(reply), ours, *pipes)

    @property
    def requests(self) -> socket.socket:
        """Where the warm process takes requests: see forked_client.py."""
        if self._socket is None:
            self._socket = self._start()
        return self._socket

    def _start(self) -> socket.socket:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), *(["torch"] if self.torch else [])],
                stdin=subprocess.DEVNULL, cwd="/", env=env, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        return ours

    def end(self) -> None:
        """End the warm process and the commands that it may be running."""
        process, self.process = self.process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


FORKS = Forks()
WITH_TORCH = Forks(torch=True)
atexit.register(FORKS.end)
atexit.register(WITH_TORCH.end)


# The warm process -----------------------------------------------------------------------------------------------------

PATH = list(sys.path)
_fork_exec = getattr(subprocess, "_fork_exec", None)
FORK_EXEC_ARGUMENTS = 23  # of CPython 3.11 and later


def main() -> None:
    """The warm process; in a fork this returns when the command has ended."""
    import moeprof

    requests = socket.socket(fileno=int(sys.argv[1]))
    torch = sys.argv[2:] == ["torch"] and not _gpu()
    for module in pkgutil.walk_packages(moeprof.__path__, "moeprof."):
        if not module.name.startswith(OWN) and not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    for name in (*HEAVY, *(TORCH if torch else ())):
        with suppress(ImportError):  # an extra
            importlib.import_module(name)
    if torch:
        sys.modules.pop("pynvml", None)  # torch imports it if it is there
    cold = [name for name in COLD if name != "torch" or not torch]
    assert not sys.modules.keys() & set(cold), "these are to be found through the command's own PYTHONPATH"
    if _fork_exec is not None:
        subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()
    argv = serve(requests)
    if argv and torch:
        os._exit(_status(argv))  # to take the interpreter down would cost as much as many a command
    if argv:
        execute(argv)


def serve(requests: socket.socket) -> list[str]:
    """Fork for each request and report the ends of the forks. In a fork: what it is to run; else nothing, once nobody asks any more."""
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:  # a fork has ended
                pid, reply = key.data
                selector.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                with reply, suppress(BrokenPipeError):
                    reply.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            request, files, _, _ = socket.recv_fds(requests, 1 << 20, 4)
            if not request:
                return []
            pid = os.fork()
            if pid == 0:
                for other in selector.get_map().values():
                    if other.data is not None:
                        other.data[1].detach()
                selector.close()
                requests.detach()
                given = json.loads(request)
                become(given["argv"], given["cwd"], given["env"], dict(enumerate(files[1:])), keep=())
                sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- this process's own was another file
                return list(given["argv"])
            reply = socket.socket(fileno=files[0])
            reply.send(str(pid).encode())
            for file in files[1:]:
                os.close(file)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def become(
    argv: Sequence[str], cwd: Any, env: dict[str, str] | None, streams: dict[int, int], keep: Sequence[int]
) -> None:
    """Take the process's environment, folder, files and path of modules, as ``exec`` would."""
    for target, source in streams.items():
        os.dup2(source, target)
    for low, high in itertools.pairwise([2, *sorted(keep), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(low + 1, high)
    name = (runnable(argv) or ("", []))[0]
    ctypes.CDLL(None).prctl(
        PR_SET_NAME, "/".join(Path(name).parts[-3:]).encode()[:15]
    )  # what command_line.running looks for
    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*added, *PATH]
    sys.orig_argv = list(argv)
    for file in [file for entry in added if (file := Path(entry, "sitecustomize.py")).is_file()][:1]:
        runpy.run_path(str(file))


def runnable(argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """The module or the file that a fork can run for this command line, and its arguments; None if a new program must."""
    words = list(argv)
    if words[0] == sys.executable:
        words.pop(0)
        while words and words[0] in FLAGS:
            words.pop(0)
        if words[:1] == ["-m"] and words[1:2] and words[1] in MODULES:
            return words[1], words[2:]
    if words and "/" in words[0] and Path(words[0]) in FILES:
        return words[0], words[1:]
    return None


def execute(argv: Sequence[str]) -> None:
    """Run the module or the file."""
    program = runnable(argv)
    assert program is not None
    name, words = program
    sys.argv = [name, *words]
    if name in MODULES:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(name, run_name="__main__")


def fork_exec(*arguments: Any) -> int:
    """Stands for ``_posixsubprocess.fork_exec``: a process that a fork can stand for becomes one, and starts no interpreter."""
    argv, executables, _, keep, cwd, env, stdin, _, _, stdout, _, stderr, _, errors = arguments[:14]
    _, session, group = arguments[14:17]
    words = [os.fsdecode(word) for word in argv]
    words[0] = _found(executables) or words[0]
    if len(arguments) != FORK_EXEC_ARGUMENTS or runnable(words) is None or arguments[21] is not None:
        return int(_fork_exec(*arguments))  # type: ignore[misc]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads run; the fork touches nothing of theirs
        pid = os.fork()
    if pid:
        return pid
    code = 255
    try:
        _forget_parent()
        if session:
            os.setsid()
        if group >= 0:
            os.setpgid(0, group)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        given = None if env is None else dict(os.fsdecode(entry).split("=", 1) for entry in env)
        streams = {target: file for target, file in enumerate((stdin, stdout, stderr)) if file != -1}
        become(words, cwd, given, streams, [file for file in keep if file != errors])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        code = _status(words)
    finally:
        os._exit(code)


def _forget_parent() -> None:
    """What is to happen when the parent ends, and its open files, are not this process's affair."""
    gc.freeze()
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    subprocess._active.clear()  # type: ignore[attr-defined]


def _found(executables: Sequence[bytes]) -> str | None:
    """The first that exists."""
    return next((os.fsdecode(path) for path in executables if Path(os.fsdecode(path)).is_file()), None)


def _status(argv: Sequence[str]) -> int:
    """Run the module or the file to its end; its exit status."""
    code = 0
    try:
        execute(argv)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code & 255


if __name__ == "__main__":
    main()
