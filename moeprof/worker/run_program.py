"""Run a Python program of the user's under torch.profiler: ``python -m moeprof.worker run [--out TRACE.json] prog.py args``.

The program runs as ``python prog.py args`` (or ``-m module``, ``-c code``) would run it: as ``__main__``, with its own sys.argv and
sys.path, and this process ends as that would: by its exit status, its signal, or a traceback without our frames. The trace is
written once, whole, when the program ends or ``STOP`` comes.
"""

from __future__ import annotations

import argparse
import builtins
import importlib.machinery
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Literal, NoReturn

from moeprof.worker import profiler

START, STOP = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5  # as moeprof.capture sends them
READY = ".ready"  # a file beside the trace: the program begins, and the two signals are heeded
DEFAULT_OUT = "trace.json"
NO_FILE = 2  # the exit status of Python that cannot open its script
FAILED = 1  # the exit status of a Python program that raised


@dataclass
class Recording:
    """The recording of this process by torch.profiler. Children by fork do not write it."""

    out: Path
    _pid: int = field(init=False, default_factory=os.getpid)
    _recorder: Any = field(init=False, default=None)
    _state: Literal["", "starting", "started", "done"] = field(init=False, default="")
    _wanted: bool = field(init=False, default=True)

    def prepare(self) -> None:
        """Import what the profiler needs: where it begins in the middle of the program, that takes seconds of the window."""
        import torch

        hasattr(torch, "_inductor")  # torch imports it at the first look
        self._recorder = profiler.profiler("cuda" if torch.cuda.is_available() else "cpu")

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._state or os.getpid() != self._pid:
            return
        self._state = "starting"
        self._recorder.start()
        self._state = "started"
        if not self._wanted:  # the end came while it began
            self.finish()

    def finish(self) -> None:
        """End and write the trace, once; nothing if it never began, or in a forked child."""
        self._wanted = False
        if self._state != "started" or os.getpid() != self._pid:
            return
        self._state = "done"
        self._recorder.stop()
        part = self.out.with_name(f"{self.out.stem}.part.json")
        self._recorder.export_chrome_trace(str(part))
        part.replace(self.out)


def main(words: Sequence[str]) -> NoReturn:
    """Run the program and end as it ends."""
    options, program = _parsed(words)
    recording = Recording(Path(options.out).absolute())
    recording.prepare()
    code = _prepare(program)
    signal.signal(START, lambda number, frame: recording.start())
    signal.signal(STOP, lambda number, frame: recording.finish())
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    _finish_before_exit(recording)
    if options.later:
        Path(f"{recording.out}{READY}").touch()
    else:
        recording.start()
    status: int | _Signalled = FAILED
    try:
        status = _run(code)
    finally:
        recording.finish()
    _end(status)


def _parsed(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m moeprof.worker run", description="Run a Python program under torch.profiler."
    )
    parser.add_argument("--out", default=DEFAULT_OUT, help=f"the trace to write (default: {DEFAULT_OUT})")
    parser.add_argument("--later", action="store_true", help="record nothing until signal SIGRTMIN+4 comes")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="prog.py args, -m module args or -c code args")
    options = parser.parse_args(list(words))
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program or (program[0] in ("-m", "-c") and len(program) < 2):
        parser.error("no program was given: python -m moeprof.worker run prog.py args")
    return options, program


@dataclass(frozen=True)
class _Signalled:
    """The program ends as Python ends by this signal."""

    number: int


class _Terminated(SystemExit):
    """SIGTERM came, which ends a program that does not handle it."""


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated(128 + number)


def _prepare(program: list[str]) -> Callable[[], CodeType]:
    """Set sys.argv, sys.path and ``__main__``; what compiles the program."""
    module = ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __spec__=None, __package__=None)
    sys.modules["__main__"] = module
    if program[0] == "-m":
        sys.argv = ["-m", *program[2:]]
        sys.path.insert(0, str(Path.cwd()))
        return lambda: _module_code(program[1], module)
    if program[0] == "-c":
        sys.argv = ["-c", *program[2:]]
        sys.path.insert(0, "")
        return lambda: compile(program[1], "<string>", "exec")
    sys.argv = program
    script = Path(program[0]).absolute()  # as Python spells it: absolute, links not followed
    sys.path.insert(0, str(script.resolve().parent))
    module.__file__ = str(script)
    module.__dict__["__cached__"] = None
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", str(script))
    return lambda: _script_code(script)


def _script_code(script: Path) -> CodeType:
    try:
        source = script.read_bytes()
    except OSError as error:
        print(
            f"{sys.executable}: can't open file {str(script)!r}: [Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        raise SystemExit(NO_FILE) from error
    return compile(source, str(script), "exec")


def _module_code(name: str, main_module: ModuleType) -> CodeType:
    """The code of a module, of a package its ``__main__``."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    code = getattr(spec.loader, "get_code", lambda name: None)(spec.name) if spec is not None else None
    if spec is None or code is None:
        print(f"{sys.executable}: No module named {name}", file=sys.stderr)
        raise SystemExit(FAILED)
    main_module.__dict__.update(
        __spec__=spec, __loader__=spec.loader, __file__=spec.origin, __package__=spec.parent, __cached__=spec.cached
    )
    sys.argv[0] = spec.origin or name
    assert isinstance(code, CodeType)
    return code


def _run(code: Callable[[], CodeType]) -> int | _Signalled:
    """Run the program and wait for its threads, as Python does before it ends; how it ended."""
    try:
        exec(code(), sys.modules["__main__"].__dict__)
        _join_threads()
    except _Terminated:
        return _Signalled(signal.SIGTERM)
    except SystemExit as leaving:
        _join_threads()
        return _exit_status(leaving)
    except KeyboardInterrupt as error:
        _print(error)
        return _Signalled(signal.SIGINT)
    except BaseException as error:  # whatever it raised: printed as Python prints it
        _print(error)
        return FAILED
    return 0


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _exit_status(leaving: SystemExit) -> int:
    """The exit status that Python makes of it; a text is printed."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr)
    return FAILED


def _print(error: BaseException) -> None:
    """The traceback without our frames, by the program's own sys.excepthook if it has one."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, importlib.util.__file__):
        trace = trace.tb_next
    error.__traceback__ = trace
    if sys.excepthook is sys.__excepthook__:
        traceback.print_exception(type(error), error, trace)
    else:
        hook: Callable[[type[BaseException], BaseException, TracebackType | None], Any] = sys.excepthook
        hook(type(error), error, trace)


def _finish_before_exit(recording: Recording) -> None:
    """``os._exit`` ends a process without a word: the trace is written first. It is the one function of the program's process that
    is replaced, because programs that serve end by it."""
    leave = os._exit

    def finish_and_exit(status: int) -> NoReturn:
        recording.finish()
        leave(status)

    os._exit = finish_and_exit


def _end(status: int | _Signalled) -> NoReturn:
    """End with the program's status, or by the signal that ended it, after its atexit functions."""
    if isinstance(status, int):
        sys.exit(status)
    import atexit

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(status.number, signal.SIG_DFL)
    os.kill(os.getpid(), status.number)
    sys.exit(128 + status.number)
