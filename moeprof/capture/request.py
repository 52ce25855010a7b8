"""What the user asked a capture for, before anything of this machine is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture.command_set import CommandSet
from moeprof.capture.program.window import Window
from moeprof.worker.spec import Device

WORKLOAD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Request:
    """One capture as its command line gives it.

    Attributes:
        workload: a name or the path of a .py file; None with ``program``, a command line, or ``commands``.
        variants: None: all.
        tools: of nsys, ncu, torch and none; None: the best that this machine has.
        rounds: None: until the verdicts are clear or the budget is spent.
        budget_s: seconds of clean timing; None: ``rounds.BUDGET_S``.
        iterations: to trace.
        ncu_kernels: to count; None: as many as the workload says.
        timeout_s: time limit of a workload's process and of a tool.
        limit_s: time limit of a program; None: none.
        window: which part of a program's run is recorded.
        nsys_args: options of ``nsys profile`` that are handed through.
        fork_before_exec: nsys traces children of a program between fork and exec.
        stdout_to: the stream (1 or 2) that a program's stdout is passed to.
        nproc: ranks; None: as many as the workload takes here.
    """

    workload: str | None = None
    program: tuple[str, ...] = ()
    commands: CommandSet | None = None
    variants: tuple[str, ...] | None = None
    preset: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    device: Device | None = None
    tools: tuple[str, ...] | None = None
    rounds: int | None = None
    budget_s: float | None = None
    iterations: int = 8
    ncu_kernels: int | None = None
    nsys: Path | None = None
    ncu: Path | None = None
    timeout_s: int = WORKLOAD_TIMEOUT_S
    limit_s: int | None = None
    window: Window = field(default_factory=Window)
    nsys_args: tuple[str, ...] = ()
    fork_before_exec: bool = False
    stdout_to: int = 1
    output: Path | None = None
    force: bool = False
    keep_raw: bool = False
    nproc: int | None = None
    argv: tuple[str, ...] = ("moeprof", "capture")
