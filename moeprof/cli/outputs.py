"""What each command prints with ``--json``: one frozen type a document. docs/schemas is written from these types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeprof.analysis.model import Analysis
from moeprof.compare.traces import DeviceComparison, TraceComparison
from moeprof.compare.variants import Comparison
from moeprof.gate.gate import Check
from moeprof.gate.history import History
from moeprof.kernels.inspection import Inspection, Traced
from moeprof.kernels.ranking import KernelCost
from moeprof.loaded.folder import FolderAnalysis
from moeprof.machine import ceilings, doctor
from moeprof.notes import Note
from moeprof.ranks.model import GroupAnalysis
from moeprof.session.log import Session, Step
from moeprof.storage.baselines import Baseline


@dataclass(frozen=True)
class ListedVariant:
    """A variant of ``moeprof list``."""

    name: str
    summary: str
    skip: str | None  # why it cannot run here; null if it can


@dataclass(frozen=True)
class ListedWorkload:
    """A workload of ``moeprof list``."""

    name: str
    summary: str
    shows: str
    baseline: str
    optimized: str
    ranks: int | None  # ranks that it runs as here unless --nproc says otherwise; null if it has none
    presets: dict[str, dict[str, Any]]
    variants: tuple[ListedVariant, ...]


@dataclass(frozen=True)
class BrokenWorkload:
    """A registered workload that does not load."""

    name: str
    error: str
    variants: tuple[ListedVariant, ...]  # empty


@dataclass(frozen=True)
class WorkloadList:
    """``moeprof list``."""

    workloads: tuple[ListedWorkload | BrokenWorkload, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class Doctor:
    """``moeprof doctor``."""

    checks: tuple[doctor.Check, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class Ceilings(ceilings.Ceilings):
    """``moeprof doctor --ceilings``: what this device reaches at best; units end the names of ``values``."""

    schema_version: int = 1


@dataclass(frozen=True)
class Captured:
    """``moeprof capture``."""

    folder: str
    exit_code: int
    message: str  # what failed; "" if nothing did
    schema_version: int = 1


@dataclass(frozen=True)
class Joined:
    """``moeprof join``."""

    folder: str
    schema_version: int = 1


@dataclass(frozen=True)
class DescribedComparison(Comparison):
    """Two variants or captures compared, with the sentences of the report."""

    sentence: str = ""
    reasons: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    lesson: str = ""  # of the workload, as far as the comparison confirms it


@dataclass(frozen=True)
class DescribedDevice(DeviceComparison):
    """One device of two traces compared, with the sentences of the report."""

    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class DescribedTraces(TraceComparison):
    """Two traces compared, with the sentences of the report."""

    devices: tuple[DescribedDevice, ...]


@dataclass(frozen=True)
class Report:
    """``moeprof report``."""

    page: str
    # of two traces the second, of one trace or program the third
    diff: DescribedComparison | DescribedTraces | Analysis | None
    schema_version: int = 1


@dataclass(frozen=True)
class Analyses:
    """``moeprof analyze`` of a capture with several traced variants."""

    variants: dict[str, Analysis]
    schema_version: int = 1


@dataclass(frozen=True)
class CounterSource:
    """The file that counters were read from."""

    path: str
    kind: str
    producer: str | None
    schema: int | None


@dataclass(frozen=True)
class CounterValue:
    """A metric of ncu in its base unit."""

    value: float
    unit: str


@dataclass(frozen=True)
class CountedLaunch:
    """One launch that ncu counted."""

    launch: int
    kernel: str
    device: int
    stream: int
    grid: str
    block: str
    metrics: dict[str, CounterValue]


@dataclass(frozen=True)
class Counted:
    """``moeprof analyze`` of a report of ncu: the launches in order, and ncu's own rules."""

    source: CounterSource
    launches: tuple[CountedLaunch, ...]
    rules: tuple[dict[str, Any], ...]
    schema_version: int = 1


@dataclass(frozen=True)
class RankAnalyses:
    """``moeprof ranks`` of several groups of ranks, by variant or trace."""

    variants: dict[str, GroupAnalysis]
    schema_version: int = 1


@dataclass(frozen=True)
class RankedKernel(KernelCost):
    """A kernel of one launch shape with its cost an iteration; times in ns."""

    limiter: str | None = None  # what allows the fewest blocks an SM; null without counters


@dataclass(frozen=True)
class KernelRanking:
    """The kernels of one variant, the most costly first."""

    windows: int
    span_ns: float  # of one window on average
    covered: float | None  # share of the kernels' time that has counters; null without ncu
    kernels: tuple[RankedKernel, ...]


@dataclass(frozen=True)
class Kernels:
    """``moeprof kernels``."""

    by: str
    variants: dict[str, KernelRanking]
    schema_version: int = 1


@dataclass(frozen=True)
class InspectSource:
    """What was inspected: a report, a capture, a workload or a program."""

    path: str
    kind: str


@dataclass(frozen=True)
class Inspected:
    """``moeprof inspect``."""

    source: InspectSource
    folder: str | None
    kernels: tuple[Inspection, ...]
    traced: tuple[Traced, ...]
    notes: tuple[Note, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class BaselineList:
    """``moeprof baseline list``."""

    folder: str
    baselines: tuple[Baseline, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class SessionLog:
    """``moeprof session log``."""

    session: Session
    schema_version: int = 1


@dataclass(frozen=True)
class SessionStep:
    """``moeprof session show``."""

    step: Step
    schema_version: int = 1


@dataclass(frozen=True)
class Exported:
    """``moeprof export``."""

    files: tuple[str, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class Failed:
    """Any command that fails with ``--json``."""

    error: str
    hint: str
    code: int  # the exit code


# document of docs/schemas -> the types of which one is printed
DOCUMENTS: dict[str, tuple[type, ...]] = {
    "analyze": (Analysis, Analyses, Counted, FolderAnalysis),
    "baseline-list": (BaselineList,),
    "capture": (Captured,),
    "check": (Check,),
    "doctor": (Doctor, Ceilings),
    "error": (Failed,),
    "export": (Exported,),
    "history": (History,),
    "inspect": (Inspected,),
    "kernels": (Kernels,),
    "list": (WorkloadList,),
    "ranks": (GroupAnalysis, RankAnalyses),
    "report": (Report,),
    "join": (Joined,),
    "session-log": (SessionLog,),
    "session-show": (SessionStep,),
}
