"""Any two commands as baseline and optimized: what the options ``--variant`` or a TOML file say, read strictly."""

from __future__ import annotations

import difflib
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moeprof.errors import UsageError
from moeprof.storage.manifest import RUN

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a variant's name is a folder of the capture
OUT = "{out}"  # in a command: the empty folder of this run
DEFAULT_NAME = "commands"
TOP_KEYS = (
    "name",
    "unit",
    "time",
    "warm_up_runs",
    "warm_up_steps",
    "environment",
    "folder",
    "setup",
    "check",
    "variants",
)
VARIANT_KEYS = ("command", "environment", "folder", "setup")
CHECK_KEYS = ("command", "file", "files", "tolerance")


@dataclass(frozen=True)
class CommandVariant:
    """One of the commands.

    Attributes:
        argv: its words. ``{out}`` in a word is replaced by the empty folder of a run, which MOEPROF_OUT names too.
        environment: variables on top of those of moeprof.
        folder: where it runs; None: where moeprof runs.
        setup: a command that runs once before it; empty: none.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    setup: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The command as a shell would run it."""
        return shlex.join(self.argv)


@dataclass(frozen=True)
class Clock:
    """What is timed in each run: the ``process`` from its start to its end, each instance of a ``region`` (``moeprof.region``), or
    the times that the program ``prints``. ``what`` is the name of the region, or the regular expression."""

    kind: Literal["process", "region", "prints"] = "process"
    what: str = ""

    @property
    def text(self) -> str:
        """In words."""
        return {
            "process": "each run of a command from its start to its end",
            "region": f"each region {self.what!r}",
            "prints": f"what the commands print, by /{self.what}/",
        }[self.kind]


@dataclass(frozen=True)
class Check:
    """What proves that a variant does the work of the baseline: a ``command`` that ends with 0, or ``files`` that are equal.

    Attributes:
        command: ``{baseline}`` and ``{candidate}`` in a word are the folders ``{out}`` of the two runs.
        files: by variant: the file that its run writes, below ``{out}`` or its folder.
        tolerance: of numbers, relative; None: the files are equal byte by byte, or value by value if they contain arrays.
    """

    command: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    tolerance: float | None = None


@dataclass(frozen=True)
class CommandSet:
    """Commands that are compared.

    Attributes:
        variants: the baseline first.
        unit: the NVTX range or ``moeprof.region`` that is one unit of work in the traces; RUN: a whole run.
        warm_up_runs: runs of each command before the first round.
        warm_up_steps: times of a run that do not count; None: the first one, if it has more than one.
        setup: a command that runs once before all; empty: none.
    """

    name: str
    variants: tuple[CommandVariant, ...]
    clock: Clock = Clock()
    unit: str = RUN
    warm_up_runs: int = 1
    warm_up_steps: int | None = None
    setup: tuple[str, ...] = ()
    check: Check | None = None

    @property
    def baseline(self) -> CommandVariant:
        """The variant named baseline, else the first."""
        return next((v for v in self.variants if v.name == "baseline"), self.variants[0])

    @property
    def optimized(self) -> CommandVariant:
        """The variant named optimized, else the last that is not the baseline."""
        candidates = [v for v in self.variants if v is not self.baseline]
        return next((v for v in candidates if v.name == "optimized"), candidates[-1])


@dataclass(frozen=True)
class Given:
    """The options of a command line that say what to compare and how; see ``from_options``."""

    variants: tuple[str, ...] = ()
    unit: str | None = None
    time: str | None = None
    check: str | None = None
    check_file: str | None = None
    tolerance: float | None = None

    @property
    def any(self) -> bool:
        """Whether any of them was given."""
        return self != Given()


def from_options(given: Given) -> CommandSet:
    """The commands of ``--variant NAME=COMMAND`` and of the options beside it.

    Raises:
        UsageError: a variant is not NAME=COMMAND, or the options do not fit together.
    """
    variants: dict[str, Any] = {}
    for text in given.variants:
        name, equals, command = text.partition("=")
        if not equals or not command.strip():
            raise UsageError(
                f"--variant {text!r} is not NAME=COMMAND", "for example --variant baseline='python gen.py eager'"
            )
        if name in variants:
            raise UsageError(f"--variant {name} was given twice", "give each command a name of its own")
        variants[name] = {"command": command}
    check = {"command": given.check, "file": given.check_file, "tolerance": given.tolerance}
    data: dict[str, Any] = {"variants": variants, "unit": given.unit, "time": given.time}
    if any(value is not None for value in check.values()):
        data["check"] = {key: value for key, value in check.items() if value is not None}
    return _set(
        {key: value for key, value in data.items() if value is not None}, "the command line", DEFAULT_NAME, Path()
    )


def read(path: Path) -> CommandSet:
    """The commands of a TOML file; folders in it are relative to the file.

    Raises:
        UsageError: the file cannot be read; names the first key that is unknown, missing or of the wrong type.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "give the path of a TOML file") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}", "see docs/howto/compare_two_commands.md") from error
    return _set(data, str(path), path.name.split(".")[0] or DEFAULT_NAME, path.parent)


def _set(data: dict[str, Any], where: str, name: str, beside: Path) -> CommandSet:
    _known(data, TOP_KEYS, where)
    tables = _table(data, "variants", where)
    if len(tables) < 2:
        raise UsageError(
            f"{where} names {len(tables)} variant{'' if len(tables) == 1 else 's'}, two are needed",
            "to capture one program: moeprof capture -- PROGRAM ARGS",
        )
    shared = (_texts(data, "environment", where), _folder(data, where, beside))
    variants = tuple(_variant(key, table, f"{where}: variants.{key}", beside, shared) for key, table in tables.items())
    unit, time = _text(data, "unit", where), _text(data, "time", where)
    return CommandSet(
        name=_name(_text(data, "name", where) or name, f"{where}: name"),
        variants=variants,
        clock=_clock(unit, time, where),
        unit=unit or RUN,
        warm_up_runs=_count(data, "warm_up_runs", where, 1),
        warm_up_steps=_count(data, "warm_up_steps", where, 0) if "warm_up_steps" in data else None,
        setup=_words(data, "setup", where),
        check=_check(_table(data, "check", where), [v.name for v in variants], f"{where}: check")
        if "check" in data
        else None,
    )


def _variant(
    name: str, table: Any, where: str, beside: Path, shared: tuple[dict[str, str], Path | None]
) -> CommandVariant:
    if not isinstance(table, dict):
        table = {"command": table}
    _known(table, VARIANT_KEYS, where)
    argv = _words(table, "command", where)
    if not argv:
        raise UsageError(f"{where}.command is missing", 'for example command = "python gen.py eager"')
    environment, folder = shared
    return CommandVariant(
        _name(name, where), argv, environment | _texts(table, "environment", where),
        _folder(table, where, beside) or folder, _words(table, "setup", where),
    )  # fmt: skip


def _clock(unit: str | None, time: str | None, where: str) -> Clock:
    if time is None:
        return Clock() if unit is None else Clock("region", unit)
    try:
        groups = re.compile(time).groupindex
    except re.error as error:
        raise UsageError(f"{where}: time is not a regular expression: {error}", _EXAMPLE) from error
    missing = [name for name in ("value", "unit") if name not in groups]
    if missing:
        raise UsageError(f"{where}: time lacks the group {missing[0]!r}", _EXAMPLE)
    return Clock("prints", time)


_EXAMPLE = r"for example 'step \d+: (?P<value>[\d.]+) (?P<unit>ms)'"


def _check(table: dict[str, Any], names: list[str], where: str) -> Check:
    _known(table, CHECK_KEYS, where)
    command, file, files = _words(table, "command", where), _text(table, "file", where), _texts(table, "files", where)
    if bool(command) + (file is not None) + bool(files) != 1:
        raise UsageError(
            f"{where} needs one of command, file and files", "a command that ends with 0, or files to compare"
        )
    _known(files, names, f"{where}.files")
    lacking = [name for name in names if files and name not in files]
    if lacking:
        raise UsageError(f"{where}.files has no file of {lacking[0]}", "name the file of each variant")
    tolerance = table.get("tolerance")
    if tolerance is not None and (
        isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1
    ):
        raise UsageError(
            f"{where}.tolerance: expected a number from 0 to below 1, found {tolerance!r}", "for example 1e-3"
        )
    if command and tolerance is not None:
        raise UsageError(f"{where}.tolerance is for files", "the command decides by its exit status")
    paths = {name: Path(files.get(name, file or "")) for name in names} if not command else {}
    return Check(command, paths, None if tolerance is None else float(tolerance))


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Each key of a table must be one of ``keys``."""
    keys = tuple(keys)
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise UsageError(
                f"{where}: unknown key {key!r}", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
            )


def _table(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise _wrong(where, key, "a table", value)
    return value


def _text(table: dict[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise _wrong(where, key, "a text", value)
    return value


def _texts(table: dict[str, Any], key: str, where: str) -> dict[str, str]:
    values = _table(table, key, where)
    for name, value in values.items():
        if not isinstance(value, str):
            raise _wrong(where, f"{key}.{name}", "a text", value)
    return dict(values)


def _words(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A command as a text that is split as a shell does, or as a list of words; empty without one."""
    value = table.get(key)
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)
    text = _text(table, key, where)
    if text is None:
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{where}: {key} {text!r} cannot be split into words: {error}", "close the quotes") from error


def _count(table: dict[str, Any], key: str, where: str, default: int) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(where, key, "a whole number from 0", value)
    return value


def _folder(table: dict[str, Any], where: str, beside: Path) -> Path | None:
    text = _text(table, "folder", where)
    if text is None:
        return None
    folder = (beside / text).resolve()
    if not folder.is_dir():
        raise UsageError(f"{where}: folder {text!r} is not a folder", f"it is looked for in {beside.resolve()}")
    return folder


def _name(text: str, where: str) -> str:
    if not NAME.fullmatch(text):
        raise UsageError(f"{where}: the name {text!r} cannot be a folder", "use letters, digits, '.', '_' and '-'")
    return text


def _wrong(where: str, key: str, expected: str, value: Any) -> UsageError:
    return UsageError(f"{where}: {key}: expected {expected}, found {type(value).__name__} {value!r:.60}", "")
