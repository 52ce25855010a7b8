"""What a capture folder says of itself: ``manifest.json`` as dataclasses.

Layout of a capture (``moeprof-out/kv_transfer-001/``; the folder is named ``….partial`` until it is complete)::

    manifest.json                  this module's Manifest
    <variant>/trace.sqlite         nsys export, redacted            (part kind "trace", tool "nsys")
    <variant>/trace.json.gz        torch.profiler (Kineto) trace    (part kind "trace", tool "torch")
    <variant>/trace.rank1.json.gz  the same of rank 1, where several ranks ran without nsys
    <variant>/trace.host1.sqlite   the nsys export of host 1
    <variant>/counters.csv         ncu raw page, redacted           (part kind "counters", tool "ncu")
    logs/<variant>-<tool>.log      what each process printed

Each further host of a capture keeps its part in a folder of its own, ``kv_transfer-001.host1/``, until the parts are joined.
All times in nanoseconds unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moeprof.errors import CaptureError
from moeprof.notes import Note
from moeprof.storage.json import decode, loads
from moeprof.workload.model import Proof

SCHEMA_VERSION = 1
FILE = "manifest.json"
RUN = "run"  # the unit of commands without a marked region: one run from start to end


@dataclass(frozen=True)
class Gpu:
    """One GPU, as NVML names it. Clocks in MHz, power in W, memory in bytes. ``other_processes`` are not moeprof's own."""

    index: int
    name: str
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    compute_capability: str | None = None
    driver: str | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    other_processes: int | None = None
    power_limit_w: float | None = None
    ecc: bool | None = None
    mig: bool | None = None


@dataclass(frozen=True)
class Environment:
    """Versions and hardware of a capture; nothing that names the user, the host or its variables."""

    moeprof: str
    python: str
    platform: str  # "Linux-6.1 x86_64"
    cpu: str
    cpus: int
    torch: str | None = None
    cuda: str | None = None
    nsys: str | None = None
    ncu: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    gpus_before: tuple[Gpu, ...] = ()
    gpus_after: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Part:
    """One file of a variant and the command that made it. ``file`` is relative to the capture folder."""

    kind: Literal["trace", "counters"]
    tool: Literal["nsys", "torch", "ncu"]
    file: str
    argv: tuple[str, ...]
    iterations: int
    sha256: str
    bytes: int
    rank: int | None = None  # whose trace it is, where each rank has one of its own; None: of all that ran on its host
    host: int = 0
    zero_utc_ns: int | None = (
        None  # of several hosts: the trace's zero by its host's clock, by ranges that were timed by both
    )
    zero_uncertainty_ns: int = 0  # as much either way


@dataclass(frozen=True)
class Round:
    """Clean times of one variant in one round (no profiler attached): raw samples of single iterations.

    ``disturbed`` says what disturbed this variant's phase; a round in which any variant was disturbed is kept and not
    ``used``. ``others_cores`` is how many cores other processes kept busy meanwhile.
    """

    index: int
    position: int  # place in the round's order, 0 first
    times_ns: tuple[int, ...]
    gpu: Gpu | None = None  # state right after the round
    others_cores: float | None = None
    disturbed: tuple[str, ...] = ()
    used: bool = True
    ranks_ns: tuple[int, ...] = ()  # of several ranks: the median of each rank's own times; times_ns has the slowest's
    rank_gpus: tuple[Gpu, ...] = ()  # of several ranks: ``gpu`` of ranks 1 and up of rank 0's host

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The state of every GPU that was watched, rank 0's first."""
        return (*((self.gpu,) if self.gpu is not None else ()), *self.rank_gpus)


@dataclass(frozen=True)
class Rank:
    """One process of a workload with ranks. ``host`` is a number, 0 for the leader's (its name is not kept); ``pid`` is that of
    the traced process, or of the timed one where none was traced; ``clock_offset_ns`` is what its host's clock is ahead of host 0's,
    give or take ``clock_uncertainty_ns``, at any time from before the variant's traced run until after it; None where it could not be
    measured. ``clock_drift_ns`` is what it gained meanwhile.
    """

    rank: int
    host: int = 0
    device_index: int | None = None  # as torch counts; None on a CPU
    gpu_uuid: str | None = None
    pid: int | None = None
    clock_offset_ns: int | None = 0
    clock_uncertainty_ns: int = 0
    clock_drift_ns: int = 0
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""
    proof: Proof | None = None
    facts: dict[str, float | str | tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantRecord:
    """All that a capture knows of one variant."""

    name: str
    summary: str
    status: Literal["pending", "ok", "skipped", "failed"]
    reason: str = ""
    proof: Proof | None = None
    flops: int | None = None
    bytes_moved: int | None = None
    facts: dict[str, float | str | tuple[float, ...]] = field(
        default_factory=dict
    )  # figures of the work that the step gave
    rounds: tuple[Round, ...] = ()
    parts: tuple[Part, ...] = ()
    twin: tuple[Round, ...] = ()  # the same variant again in every round, for the A/A noise; only the baseline has it
    twin_process: bool | None = None  # whether the twin ran in a process of its own
    ranks: tuple[Rank, ...] = ()  # of a workload with ranks
    command: tuple[str, ...] = ()  # of a capture of commands: the words of this one

    def part(self, kind: str) -> Part | None:
        """The part of that kind, if it was captured; of several ranks' traces that of rank 0."""
        return next((p for p in self.parts if p.kind == kind), None)

    @property
    def used(self) -> tuple[Round, ...]:
        """The rounds that count: those that nothing disturbed."""
        return tuple(r for r in self.rounds if r.used)

    @property
    def times_ns(self) -> tuple[int, ...]:
        """Every clean time of this variant, round after round, disturbed ones too."""
        return tuple(t for r in self.rounds for t in r.times_ns)


@dataclass(frozen=True)
class Manifest:
    """A capture: what ran, where, with what parameters, and what of it succeeded.

    ``kind`` "workload" has variants that do the same work; "program" is the user's own command, one variant called
    "program"; "commands" has one variant a command. ``limit`` is the encoded Pipeline, Roofline or Exchange of the workload; ``ceilings`` what was measured,
    name -> GB/s or TFLOP/s.
    """

    schema_version: int
    kind: Literal["workload", "program", "commands"]
    name: str
    created: str  # ISO 8601, UTC
    argv: tuple[str, ...]
    device: Literal["cuda", "cpu"]
    environment: Environment
    summary: str = ""
    shows: str = ""
    preset: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    baseline: str | None = None
    optimized: str | None = None
    limit: dict[str, Any] | None = None
    looks: int = 1  # how many times the rounds may have been looked at to decide whether to go on (stats.LOOKS)
    ceilings: dict[str, float] = field(default_factory=dict)
    git: str | None = None  # commit of the workload's checkout, "+dirty" where it had changes
    complete: bool = False
    ranks: int = 1  # processes that ran each variant together
    capture_id: str = ""  # of several hosts: the same in all parts of the capture
    host_count: int = 1
    hosts: tuple[int, ...] = (0,)  # those whose part is in this folder
    unit: str = ""  # of commands: the range whose instances are compared, or RUN; "": the worker's iterations
    clock: str = ""  # of commands: what was timed, in words
    checked: str = ""  # of commands: how the same work was proven; "": it was not
    variants: tuple[VariantRecord, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def link_ceiling_gb_per_s(self) -> float | None:
        """The measured ceiling that the workload's limit names, if there is one."""
        return self.ceilings.get((self.limit or {}).get("ceiling", ""))

    @property
    def chosen(self) -> str:
        """The variant whose numbers count where none is named: the optimized one, else the last one; "" without any."""
        names = [v.name for v in self.variants]
        return self.optimized if self.optimized in names else (names or [""])[-1]

    def variant(self, name: str) -> VariantRecord | None:
        """The record of variant ``name``, if the capture has it."""
        return next((v for v in self.variants if v.name == name), None)


def read(folder: Path) -> Manifest:
    """The manifest of the capture at ``folder``.

    Raises:
        CaptureError: there is none, it is not JSON, a field is wrong, or a newer moeprof wrote it.
    """
    path = folder / FILE
    if not path.is_file():
        raise CaptureError(
            f"{folder} is not a capture: it holds no {FILE}", "make one with: moeprof capture kv_transfer"
        )
    try:
        data = loads(path.read_bytes())
    except CaptureError as error:
        raise CaptureError(f"{path} is {error.message}", "capture again") from error
    if (
        isinstance(data, dict)
        and isinstance(data.get("schema_version"), int)
        and data["schema_version"] > SCHEMA_VERSION
    ):
        raise CaptureError(
            f"{path} has schema version {data['schema_version']}; this moeprof reads up to {SCHEMA_VERSION}",
            "update moeprof",
        )
    try:
        return decode(Manifest, data)
    except CaptureError as error:
        raise CaptureError(f"{path}: {error.message}", "capture again") from error
