"""Requests and replies between capture and worker, and between the leader and the other ranks.

One message is one JSON object on one line; ``type`` names its class: ``{"type": "round", "seconds": 0.25}``. Each request class
names the class of its reply. A worker answers ``Prepare``, ``Build``, ``Prove``, ``Round`` and ``Quit``. A rank answers
``Resolve``, ``Ceilings``, ``Build``, ``Prove``, ``Times``, ``Warm``, ``Measure`` and ``Quit``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from moeprof.errors import (
    CaptureError,
    ExitCode,
    MoeprofError,
    ToolError,
    UsageError,
    WorkloadError,
)
from moeprof.storage.json import decode, encode
from moeprof.worker.clock_offset import Anchor
from moeprof.worker.failures import Failure, RankError
from moeprof.worker.spec import Params, Profiler
from moeprof.workload.model import Machine, Proof

Facts = dict[str, float | str | tuple[float, ...]]
KINDS: dict[int, type[MoeprofError]] = {
    ExitCode.FAILED: CaptureError, ExitCode.USAGE: UsageError, ExitCode.TOOL: ToolError, ExitCode.WORKLOAD: WorkloadError,
}  # fmt: skip


class Reply:
    """What a worker or a rank answers."""


R = TypeVar("R", bound=Reply)


class Request(Generic[R]):
    """What a worker or a rank is asked to do; ``reply`` is the class of the answer."""

    reply: ClassVar[type[Reply]]


# Replies


@dataclass(frozen=True)
class RankProcess(Reply):
    """Which process on which device a rank is. ``device_index`` is torch's, None on a CPU; ``host`` 0 is the leader's."""

    rank: int
    pid: int
    device_index: int | None = None
    gpu_uuid: str | None = None
    host: int = 0


@dataclass(frozen=True)
class Versions:
    """Versions of what the workload runs on."""

    python: str
    torch: str
    cuda: str | None = None


@dataclass(frozen=True)
class Hello(Reply):
    """A worker's first line. ``skip`` is the reason why the variant cannot run here; ``ranks`` is empty without ranks."""

    machine: Machine
    versions: Versions
    gpu_uuid: str | None = None
    skip: str | None = None
    ranks: tuple[RankProcess, ...] = ()


@dataclass(frozen=True)
class Prepared(Reply):
    """Concrete parameters, and ceilings by name in GB/s or TFLOP/s."""

    params: Params
    ceilings: dict[str, float]


@dataclass(frozen=True)
class Resolved(Reply):
    """Concrete parameters."""

    params: Params


@dataclass(frozen=True)
class MeasuredCeilings(Reply):
    """Ceilings by name in GB/s or TFLOP/s."""

    ceilings: dict[str, float]


@dataclass(frozen=True)
class Built(Reply):
    """The work of one iteration."""

    flops: int
    bytes_moved: int


@dataclass(frozen=True)
class Proven(Reply):
    """The verdict of the proof, and the variant's facts. ``ranks``: the reply of each rank, if there are several."""

    proof: Proof
    facts: Facts = field(default_factory=dict)
    ranks: tuple[Proven, ...] = ()


@dataclass(frozen=True)
class Timed(Reply):
    """Clean times of single iterations in ns. ``ranks_ns``: each rank's median, if there are several."""

    times_ns: tuple[int, ...]
    ranks_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured(RankProcess):
    """The process that ran under the profiler, and the clock anchors that it pushed, by their number."""

    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True)
class Done(Reply):
    """Nothing to report."""


@dataclass(frozen=True)
class ErrorReply(Reply):
    """An error. ``code`` is the exit code of its kind; ``failure`` says which rank failed and how, if one did."""

    error: str
    hint: str = ""
    code: int = ExitCode.WORKLOAD
    failure: Failure | None = None

    @staticmethod
    def of(error: MoeprofError) -> ErrorReply:
        """An error as a message."""
        failure = error.failure if isinstance(error, RankError) else None
        code = error.exit_code if failure is None else failure.code
        return ErrorReply(error.message, error.hint, int(code), failure)

    def exception(self, prefix: str = "") -> MoeprofError:
        """The error to raise, of the kind that ``code`` names."""
        if self.failure is not None and self.code == ExitCode.WORKLOAD:
            return RankError(self.failure, prefix)
        message = prefix + self.error
        return KINDS.get(self.code, WorkloadError)(message, self.hint)


# Requests


@dataclass(frozen=True)
class Prepare(Request[Prepared]):
    """Resolve the parameters and measure the ceilings."""

    params: Params
    reply = Prepared


@dataclass(frozen=True)
class Resolve(Request[Resolved]):
    """Resolve the parameters: calibration."""

    params: Params
    reply = Resolved


@dataclass(frozen=True)
class Ceilings(Request[MeasuredCeilings]):
    """Measure the ceilings."""

    params: Params
    reply = MeasuredCeilings


@dataclass(frozen=True)
class Build(Request[Built]):
    """Build the variant."""

    params: Params
    reply = Built


@dataclass(frozen=True)
class Prove(Request[Proven]):
    """Prove the built variant."""

    reply = Proven


@dataclass(frozen=True)
class Round(Request[Timed]):
    """Time the built variant for about ``seconds``; of several ranks the slowest counts."""

    seconds: float
    reply = Timed


@dataclass(frozen=True)
class Times(Request[Timed]):
    """Time ``count`` iterations."""

    count: int
    reply = Timed


@dataclass(frozen=True)
class Warm(Request[Done]):
    """Run a few iterations untimed."""

    reply = Done


@dataclass(frozen=True)
class Measure(Request[Measured]):
    """Run ``iterations`` under the profiler. ``gate`` is the start barrier to leave once the device has nothing more to do."""

    iterations: int
    profiler: Profiler
    out: str | None = None
    gate: str | None = None
    reply = Measured


@dataclass(frozen=True)
class Quit(Request[Done]):
    """End the process; nobody reads a reply."""

    reply = Done


@dataclass(frozen=True)
class RunResult:
    """The file that a ``measure`` worker leaves at its end."""

    iterations: int
    proof: Proof
    ranks: tuple[Measured, ...] = ()


REQUESTS: tuple[type[Request[Any]], ...] = (
    Prepare, Resolve, Ceilings, Build, Prove, Round, Times, Warm, Measure, Quit,
)  # fmt: skip
REPLIES: tuple[type[Reply], ...] = (
    Hello, RankProcess, Prepared, Resolved, MeasuredCeilings, Built, Proven, Timed, Measured, Done, ErrorReply,
)  # fmt: skip


def name_of(kind: type[Any]) -> str:
    """The ``type`` of a class of messages: ``measured_ceilings`` of ``MeasuredCeilings``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


BY_NAME: dict[str, type[Any]] = {name_of(kind): kind for kind in (*REQUESTS, *REPLIES)}


def name(message: Request[Any] | Reply) -> str:
    """The ``type`` of a message."""
    return name_of(type(message))


def line(message: Request[Any] | Reply) -> str:
    """A message as one line of JSON, without the newline."""
    return json.dumps({"type": name(message), **encode(message)})


def request(text: str) -> Request[Any]:
    """The request in a line.

    Raises:
        CaptureError: the line is not a request, or a field is missing or of the wrong type.
    """
    message = _message(text)
    if not isinstance(message, Request):
        raise CaptureError(f"expected a request, found {text[:200]!r}")
    return message


def reply(text: str) -> Reply:
    """The reply in a line, which may be an ``ErrorReply``.

    Raises:
        CaptureError: the line is not a reply, or a field is missing or of the wrong type.
    """
    message = _message(text)
    if not isinstance(message, Reply):
        raise CaptureError(f"expected a reply, found {text[:200]!r}")
    return message


def reply_to(request: Request[R], answer: Reply) -> R:
    """``answer`` as the class that ``request`` names.

    Raises:
        CaptureError: it is of another class.
    """
    if not isinstance(answer, request.reply):
        raise CaptureError(f"{name(request)} was answered by {name(answer)}, expected {name_of(request.reply)}")
    return answer  # type: ignore[return-value]


def error_in(text: str) -> ErrorReply | None:
    """The error in a line of a log; None if the line is anything else."""
    try:
        message = _message(text)
    except CaptureError:
        return None
    return message if isinstance(message, ErrorReply) else None


def _message(text: str) -> Any:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    kind = BY_NAME.get(str(data.get("type"))) if isinstance(data, dict) else None
    if kind is None:
        raise CaptureError(f"expected one message as JSON, found {text[:200]!r}", f"known types: {', '.join(BY_NAME)}")
    return decode(kind, data, name_of(kind))
