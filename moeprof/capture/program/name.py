"""The name and the script of a program, from its command line. Pure, apart from looking whether a word is a file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PYTHON = re.compile(r"^python(\d+(\.\d+)*)?(t|d)?(\.exe)?$")
SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
# commands that start another command: their own options and numbers come first
LAUNCHERS = (
    "torchrun", "accelerate", "deepspeed", "mpirun", "mpiexec", "srun", "env", "nice", "nohup", "time", "numactl", "taskset",
    "stdbuf", "timeout", "uv", "poetry", "pipenv", "conda", "xvfb-run", "sudo", "setsid", "ionice", "chrt",
)  # fmt: skip
SUBCOMMANDS = ("launch", "run", "exec")  # of accelerate, uv, conda
SCRIPT_SUFFIXES = (".py", ".sh", ".bash", ".ipynb")
DEFAULT = "program"
# options of Python that take the next word
PYTHON_VALUES = ("-W", "-X", "--check-hash-based-pycs")


@dataclass(frozen=True)
class PythonCommand:
    """A Python command line taken apart.

    Attributes:
        interpreter: the word that names it; "" where a .py file is the command itself.
        options: of the interpreter: ``-u``, ``-X dev``.
        kind: "script", "module" (``-m``) or "code" (``-c``).
        target: the script's path, the module's name or the code.
        args: the program's own.
    """

    interpreter: str
    options: tuple[str, ...]
    kind: str
    target: str
    args: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The program without its interpreter: ``script.py args``, ``-m module args`` or ``-c code args``."""
        switch = {"script": (), "module": ("-m",), "code": ("-c",)}[self.kind]
        return (*switch, self.target, *self.args)


def python_command(words: tuple[str, ...]) -> PythonCommand | None:
    """``python [options] script.py args`` and its like; None if the words do not start Python with a program."""
    if words[0].endswith(".py"):
        return PythonCommand("", (), "script", words[0], words[1:])
    if not PYTHON.match(Path(words[0]).name):
        return None
    at = 1
    while at < len(words):
        word = words[at]
        if word in ("-m", "-c") and at + 1 < len(words):
            kind = "module" if word == "-m" else "code"
            return PythonCommand(words[0], words[1:at], kind, words[at + 1], words[at + 2 :])
        if not word.startswith("-"):
            return PythonCommand(words[0], words[1:at], "script", word, words[at + 1 :])
        at += 2 if word in PYTHON_VALUES else 1
    return None


def program_name(words: tuple[str, ...]) -> str:
    """The name of a program's capture: that of its script or module, else of its executable.

    ``python -u hf_mixtral.py`` is "hf_mixtral", ``python -m pkg.server`` "server", ``torchrun --nproc-per-node 2 train.py``
    "train", ``bash run.sh`` "run".
    """
    return _cleaned(_name(words)) or DEFAULT


def script_of(words: tuple[str, ...]) -> Path | None:
    """The script or executable file that these words name; None if none of them does."""
    python = python_command(words)
    candidates = (python.target,) if python is not None else words
    return next((Path(word) for word in candidates if Path(word).is_file()), None)


def _name(words: tuple[str, ...]) -> str:
    if not words:
        return DEFAULT
    python = python_command(words)
    if python is not None:
        if python.kind == "module":
            return _module(python.target)
        return Path(python.target).stem if python.kind == "script" else Path(python.interpreter).name
    first = Path(words[0]).name
    if first in SHELLS:
        return _in_shell(words) or first
    if first in LAUNCHERS:
        return _launched(words[1:]) or first
    return _stem(words[0])


def _stem(word: str) -> str:
    path = Path(word)
    return path.stem if path.suffix in (*SCRIPT_SUFFIXES, ".out", ".exe") else path.name


def _module(name: str) -> str:
    parts = [part for part in name.split(".") if part not in ("", "__main__", "main")]
    return parts[-1] if parts else name


def _in_shell(words: tuple[str, ...]) -> str:
    """``bash run.sh`` is its script; ``bash -c '...'`` is the command of that text."""
    for at, word in enumerate(words[1:], start=1):
        if word.startswith("-") and word.endswith("c") and at + 1 < len(words):
            return _name_of_text(words[at + 1])
        if not word.startswith(("-", "+")):
            return _stem(word)
    return ""


def _name_of_text(text: str) -> str:
    try:
        inner = shlex.split(text)
    except ValueError:
        return ""
    inner = [word for word in inner if word not in ("exec",) and not re.match(r"^\w+=", word)]
    return _name(tuple(inner)) if inner else ""


def _launched(words: tuple[str, ...]) -> str:
    """The program behind a launcher's own options: a script, a module after ``-m``, or the first word that is a command."""
    rest = tuple(word for word in words if not re.match(r"^\w+=", word))
    for at, word in enumerate(rest):
        name = Path(word).name
        if word == "-m" and at + 1 < len(rest):
            return _module(rest[at + 1])
        if Path(word).suffix in SCRIPT_SUFFIXES:
            return Path(word).stem
        if PYTHON.match(name) or name in SHELLS or name in LAUNCHERS:
            return _name(rest[at:])
    commands = [word for word in rest if not word.startswith("-") and word not in SUBCOMMANDS]
    files = [word for word in commands if Path(word).is_file()]
    words_only = [word for word in commands if not re.match(r"^[\d.,:-]+[a-z]?$", word)]
    return _stem((files or words_only or [""])[0])


def _cleaned(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:80]
