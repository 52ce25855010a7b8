"""What a program prints, passed through as it comes and written to logs as well.

The program's stdout and stderr are opened by path in a process that then becomes the program. So nothing of a profiler's own
messages is mixed in, whatever the profiler does with the streams that it was given. Where moeprof's stream is a terminal, the
program's is one too (a pseudo-terminal of the same size). Its stdin is moeprof's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import struct
import sys
import tempfile
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

STDOUT, STDERR = 1, 2
CHUNK = 1 << 16
IDLE_S = 0.05  # a drained stream stays silent so long
ERASE = b"\r\x1b[2K"
# what becomes the program: it leaves its process number, opens the two streams and executes the rest
SHELL = ("/bin/sh", "-c", 'echo $$ >"$1"; exec >"$2" 2>"$3"; shift 3; exec "$@"', "moeprof")
# the same for terminals, which must not become the program's controlling terminal: it would then ask for passwords there
PYTHON_CODE = """
import os, sys
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
for number in (1, 2):
    fd = os.open(sys.argv[number + 1], os.O_RDWR | os.O_NOCTTY)
    os.dup2(fd, number)
    os.close(fd)
os.execvp(sys.argv[4], sys.argv[4:])
"""
PYTHON = (sys.executable, "-I", "-S", "-c", PYTHON_CODE)


@dataclass
class Stream:
    """One stream of the program: ``path`` is what the program opens, ``fd`` where its bytes come from, ``to`` where they go."""

    path: str
    fd: int
    to: int
    log: BinaryIO
    spare: int  # an end for writing that stays open, so that a program which closes the stream does not end it
    terminal: bool = False

    def close(self) -> None:
        """Close all of it."""
        for fd in (self.fd, self.spare):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.log.close()


class Output:
    """The streams of one run of a program. ``stdout_to`` is 2 where moeprof's own stdout carries data."""

    def __init__(self, stdout_log: Path, stderr_log: Path, stdout_to: int = STDOUT) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="moeprof-"))
        self._lock = threading.Lock()
        self._line_start, self._status = True, b""
        self._broken: set[int] = set()
        self._over = threading.Event()
        out = self._stream("out", stdout_to, stdout_log)
        # both streams into one file or terminal: one stream, so that their order is kept
        shared = stdout_to == STDERR or _same_file(STDOUT, STDERR)
        self._streams = [out] if shared else [out, self._stream("err", STDERR, stderr_log)]
        self._paths = (out.path, self._streams[-1].path)
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def __enter__(self) -> Output:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Pass on what is left, then close."""
        self._over.set()
        self._thread.join()
        self.status("")
        for stream in self._streams:
            stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wrapped(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The command that runs ``words`` with these streams and leaves its process number in ``pid``."""
        opener = PYTHON if any(stream.terminal for stream in self._streams) else SHELL
        return (*opener, str(self._pid_file), *self._paths, *words)

    @property
    def _pid_file(self) -> Path:
        return self._folder / "pid"

    @property
    def pid(self) -> int | None:
        """The program's process; None before it has started."""
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None

    def status(self, text: str) -> None:
        """Show one line below the program's output on a terminal until more output comes; "" takes it away."""
        if not os.isatty(STDERR):
            return
        for stream in self._streams:
            if stream.terminal:
                _resize(stream.spare, stream.to)
        with self._lock:
            self._erase()
            self._status = text.encode()
            self._draw()

    def _stream(self, name: str, to: int, log: Path) -> Stream:
        file = log.open("ab", buffering=0)
        if os.isatty(to):
            master, slave = os.openpty()
            _like_terminal(slave, to)
            return Stream(os.ttyname(slave), master, to, file, slave, terminal=True)
        path = self._folder / name
        os.mkfifo(path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return Stream(str(path), fd, to, file, os.open(path, os.O_WRONLY))

    def _pump(self) -> None:
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream.fd, selectors.EVENT_READ, stream)
            while True:
                over = self._over.is_set()  # looked at first: what was written before is still read
                ready = selector.select(IDLE_S)
                for key, _ in ready:
                    self._pass(key.data)
                if over and not ready:
                    return

    def _pass(self, stream: Stream) -> None:
        try:
            data = os.read(stream.fd, CHUNK)
        except (BlockingIOError, OSError):
            return
        stream.log.write(data)
        with self._lock:
            self._erase()
            if stream.to not in self._broken:
                self._write(stream.to, data)
            self._line_start = data.endswith(b"\n") if data else self._line_start
            self._draw()

    def _write(self, to: int, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(to, data) :]
        except OSError:  # whoever read it is gone: the log goes on, and so does the program
            self._broken.add(to)

    def _erase(self) -> None:
        if self._status and self._line_start and os.isatty(STDERR):
            self._write(STDERR, ERASE)

    def _draw(self) -> None:
        if self._status and self._line_start and STDERR not in self._broken:
            columns = shutil.get_terminal_size().columns
            self._write(STDERR, self._status[: max(columns - 1, 1)])


def _same_file(first: int, second: int) -> bool:
    try:
        return os.path.sameopenfile(first, second)
    except OSError:
        return False


def _like_terminal(slave: int, of: int) -> None:
    """The same size, and bytes that pass as they are: the real terminal adds its carriage returns."""
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    _resize(slave, of)


def _resize(slave: int, of: int) -> None:
    """The size of terminal ``of``; a change sends SIGWINCH to programs in the foreground of the other."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(of, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        if size != fcntl.ioctl(slave, termios.TIOCGWINSZ, size):
            fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
