"""The one exception family that moeprof raises on purpose, each with a hint and an exit code.

Only ``moeprof.cli.main`` turns these into text and an exit status; everything below it raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process's exit status means (a contract: see docs/reference/cli.md)."""

    OK = 0
    FAILED = 1  # moeprof failed, or a capture is not valid
    USAGE = 2  # the command line is wrong
    GATE = 3  # a gate failed
    TOOL = 4  # a tool is missing or not permitted
    WORKLOAD = 5  # the workload itself failed


class MoeprofError(Exception):
    """A failure with one clear line: ``message`` says what and where, ``hint`` says what to do."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CaptureError(MoeprofError):
    """A capture is missing, incomplete or not what it claims to be."""


class TraceError(MoeprofError):
    """A trace file cannot be read: names the file, the field, what was found and what was expected."""


class UsageError(MoeprofError):
    """The user asked for something that does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class ToolError(MoeprofError):
    """nsys, ncu, nvcc or a driver is missing, failed, or is not permitted."""

    exit_code = ExitCode.TOOL


class WorkloadError(MoeprofError):
    """The workload (or the user's program) failed: it crashed, hung, or its output is wrong."""

    exit_code = ExitCode.WORKLOAD


def of_workload(error: Exception, hint: str = "") -> MoeprofError:
    """An exception out of a workload as one of ours: itself if it is, else the workload's failure with ``hint``."""
    return error if isinstance(error, MoeprofError) else WorkloadError(f"{type(error).__name__}: {error}", hint)


def choices(name: str, known: Iterable[str], what: str) -> str:
    """The hint for a ``name`` that does not exist: the nearest of the ``known`` ones, then all of them after ``what``."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return f"{suggestion}{what}: {', '.join(names) or 'none'}"
