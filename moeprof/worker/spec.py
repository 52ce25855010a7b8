"""What one worker process does, as one JSON value: ``python -P -m moeprof.worker --spec JSON``.

The capture, the leader of ranks and a further host's capture all start workers by a ``WorkerSpec``. A spec is data: a variation
of a run is ``dataclasses.replace`` on it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moeprof.errors import UsageError
from moeprof.machine.launcher import Team
from moeprof.storage.json import decode, encode

Mode = Literal["serve", "measure", "follow", "host"]
Device = Literal["cuda", "cpu"]
Profiler = Literal["nsys", "ncu", "torch", "none"]
Params = dict[str, Any]  # a workload's own parameters: name -> JSON value
TIMEOUT_S = 300.0
SECTIONS: dict[Mode, tuple[str, ...]] = {
    "serve": ("target",), "measure": ("target", "measurement"), "follow": ("target", "follower"),
    "host": ("target", "follower"),
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One variant to run. ``workload`` is a name or the path of a .py file. Without a ``team``, a workload with ranks runs as one
    rank."""

    workload: str
    variant: str
    device: Device
    params: Params = field(default_factory=dict)
    team: Team | None = None


@dataclass(frozen=True)
class Measurement:
    """A run under a profiler: build, prove, warm up, then ``iterations`` under NVTX ranges.

    Attributes:
        result: the file that the worker writes at its end (``messages.RunResult`` as JSON).
        out: the trace that torch.profiler writes; other ranks write beside it.
        gate: a start barrier (``worker.start_barrier``) before the measured region.
        hold: a start barrier before anything touches the device; its file contains the parameters, which replace the target's.
    """

    profiler: Profiler
    result: str
    iterations: int = 1
    out: str | None = None
    gate: str | None = None
    hold: str | None = None


@dataclass(frozen=True)
class Follower:
    """Rank 1 and up, started by another worker; or all ranks of a further host, started by that host's capture.

    Attributes:
        parent_pid: the process with which this one ends.
        group_timeout_s: time limit of the process group's collectives.
        clock_ahead_ns: how far this host's clock is ahead of the leader's.
        host: its number.
        out: the trace that torch.profiler writes on a further host; the ranks there write beside it.
    """

    parent_pid: int
    group_timeout_s: float
    clock_ahead_ns: int = 0
    host: int = 0
    out: str | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """One worker process.

    Attributes:
        mode: ``serve`` answers requests on stdin; ``measure`` runs once under a profiler; ``follow`` is a rank that answers the
            leader; ``host`` starts the ranks of a further host.
        timeout_s: time limit of what ranks do together.
        log: the log of rank 0; every other rank writes its own beside it.

    Raises:
        UsageError: the mode lacks a section.
    """

    mode: Mode
    target: Target | None = None
    timeout_s: float = TIMEOUT_S
    log: str | None = None
    measurement: Measurement | None = None
    follower: Follower | None = None

    def __post_init__(self) -> None:
        missing = [section for section in SECTIONS[self.mode] if getattr(self, section) is None]
        if missing:
            raise UsageError(f"a worker's spec of mode {self.mode!r} lacks {', '.join(missing)}")

    @property
    def text(self) -> str:
        """The spec as one line of JSON; what is None is left out."""
        return json.dumps(_present(encode(self)), allow_nan=False, ensure_ascii=False)

    @property
    def argv(self) -> tuple[str, ...]:
        """The worker's argument list; -P keeps the current folder off its import path."""
        return (sys.executable, "-P", "-m", "moeprof.worker", "--spec", self.text)

    def holding(self, hold: str) -> WorkerSpec:
        """The same measurement, whose process imports and then waits at the start barrier ``hold`` for its parameters."""
        assert self.target is not None and self.measurement is not None
        return replace(self, target=replace(self.target, params={}), measurement=replace(self.measurement, hold=hold))


def read(text: str) -> WorkerSpec:
    """The spec that ``WorkerSpec.text`` wrote.

    Raises:
        UsageError: the text is not JSON, or the mode lacks a section.
        CaptureError: names the path of the first field that is missing or of the wrong type.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--spec is not JSON: {error}") from error
    return decode(WorkerSpec, data, "spec")


def params_text(params: Params) -> str:
    """Parameters as the text of a start barrier."""
    return json.dumps(params, sort_keys=True)


def read_params(text: str) -> Params:
    """The parameters that ``params_text`` wrote."""
    params: Params = json.loads(text)
    return params


def _present(value: Any) -> Any:
    """Without keys whose value is None; parameters are left as they are."""
    if not isinstance(value, dict):
        return value
    return {k: v if k == "params" else _present(v) for k, v in value.items() if v is not None}
