"""The numbers of one trace, as dataclasses: exactly the JSON of ``moeprof analyze --json`` (docs/reference/cli.md).

Definitions and sources: docs/reference/metrics.md. A value that cannot be known is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from moeprof.notes import Note

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Source:
    """Which file the numbers come from."""

    path: str
    kind: Literal["nsys", "kineto", "capture"]
    producer: str | None
    schema: str | None


@dataclass(frozen=True)
class Ledger:
    """Every nanosecond of a window under exactly one owner; the fields sum to the window's span."""

    compute_ns: int
    exposed_comm_ns: int
    exposed_copy_ns: int
    exposed_migration_ns: int
    exposed_memset_ns: int
    idle_ns: int


@dataclass(frozen=True)
class Idle:
    """What the host did while the device starved; the fields sum to the ledger's idle time."""

    launch_ns: int
    sync_ns: int
    host_ns: int
    dependency_ns: int
    edge_ns: int


@dataclass(frozen=True)
class Copies:
    """Copies of one direction and memory kind inside a window. ``memory`` is the host side's: pinned, pageable, ..."""

    direction: str
    memory: str
    count: int
    bytes: int
    busy_ns: int  # |U(C_d)|
    overlapped_ns: int  # |C_d n (K u N)|
    exposed_ns: int  # |C_d \\ (K u N)|
    throughput_gb_per_s: float | None  # bytes / busy_ns
    why_exposed: dict[str, int] = field(default_factory=dict)  # cause -> ns, sums to exposed_ns


@dataclass(frozen=True)
class Cause:
    """Exposed copies or idle gaps of one cause, with the evidence: the call, the stream, the longest one; and what to try."""

    cause: str
    what: str
    stream: int
    count: int
    total_ns: int
    longest_ns: int
    longest_at_ns: int  # start of the operation: the copy itself, or the one that ended the gap
    try_: str


@dataclass(frozen=True)
class Communication:
    """Operations of one class of communication inside a window; ``hidden`` is what runs under compute kernels."""

    name: str
    count: int
    busy_ns: int  # |U(N_c)|
    hidden_ns: int  # |N_c n K|
    exposed_ns: int  # |N_c \\ K|
    bytes: int | None  # of copies; not known for kernels


@dataclass(frozen=True)
class CallCount:
    """Host calls of one name inside a window."""

    name: str
    kind: str
    count: int
    total_ns: int


@dataclass(frozen=True)
class Launch:
    """Launch numbers of a window: A = api, Q = queue (nsys stats cuda_kern_exec_*).

    ``queue_*`` count every kernel that started after its launch call returned; ``latency_*`` only those whose stream
    was empty when the call began: only these are launch overhead, the others waited behind work.
    """

    kernels: int
    joined: int
    api_ns_median: float | None
    api_ns_total: int
    queue_ns_median: float | None
    queue_count: int
    latency_ns_median: float | None
    latency_count: int
    graph_launches: int
    kernels_in_graphs: int
    sync_calls: int
    calls: tuple[CallCount, ...] = ()  # every CUDA call of the window's threads, by total time


@dataclass(frozen=True)
class Window:
    """The numbers of one device inside one window (METRICS: an iteration, a range instance or a whole trace)."""

    device: int
    range: str | None
    instance: int | None
    start_ns: int
    end_ns: int
    span_ns: int
    ledger: Ledger
    idle: Idle
    compute_busy_ns: int
    comm_busy_ns: int
    copy_busy_ns: int
    copies: tuple[Copies, ...]
    launch: Launch
    graph_busy_ns: int = 0  # of compute_busy_ns: CUDA graph replays that were traced whole
    communication: tuple[Communication, ...] = ()
    exposed_causes: tuple[Cause, ...] = ()
    idle_causes: tuple[Cause, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """Kernels of one name on one device, over the whole trace."""

    name: str
    count: int
    total_ns: int
    median_ns: float
    min_ns: int
    max_ns: int
    device: int
    family: str | None = None  # attention, gemm, copy-like, elementwise, compute or communication
    exposed_ns: int | None = None  # in which it runs and no kernel of another name does
    idle_before_ns: int | None = None  # idle time of the device that these kernels ended


@dataclass(frozen=True)
class Family:
    """Kernels of one family on one device, over the whole trace."""

    name: str
    device: int
    names: int  # different kernels
    count: int
    total_ns: int
    exposed_ns: int
    idle_before_ns: int
    owned_ns: int  # of the device's ledger: families of compute kernels sum to compute_ns less whole CUDA graphs
    judged_ns: int | None = None  # the same of the judged part


@dataclass(frozen=True)
class Range:
    """Instances of one range, over the whole trace; gpu_ops counts launch calls that produced GPU work."""

    domain: str
    name: str
    instances: int
    host_ns: int
    gpu_span_ns: int | None
    gpu_ops: int


@dataclass(frozen=True)
class RangeNode:
    """A node of the tree of ranges by GPU time. Ids and numbers in names are folded: "layers.*".

    ``gpu_ns`` is busy time of all devices, each nanosecond under the operation that began first; children fit into it.
    Nodes below 0.1 % of all GPU time are left out.
    """

    name: str
    kind: Literal["all", "range", "operation", "outside"]
    parent: int | None  # its place in the list
    instances: int
    gpu_ns: int


@dataclass(frozen=True)
class CopySize:
    """Explicit copies of one direction, memory kind and class of size on one device, over the whole trace."""

    device: int
    direction: str
    memory: str
    from_bytes: int
    to_bytes: int | None  # null: no upper bound
    count: int
    bytes: int
    busy_ns: int  # |U(C)|
    exposed_ns: int  # |C \\ (K u N)|
    throughput_gb_per_s: float | None  # bytes / busy_ns


@dataclass(frozen=True)
class Pass:
    """One repetition of a device's loop: from its first operation to the first one of the next pass."""

    name: str
    start_ns: int
    end_ns: int
    span_ns: int
    ledger: Ledger  # sums to span_ns
    idle: Idle  # sums to the ledger's idle_ns
    compute: dict[str, int]  # family of kernels -> ns, "graph" for whole CUDA graphs; sums to the ledger's compute_ns


@dataclass(frozen=True)
class Excess:
    """What a slow pass has more of than the pass of median length."""

    kind: Literal[
        "owner", "idle", "kernel"
    ]  # a part of the ledger, a cause of idle time with its call, kernels of a name
    name: str
    ns: int
    count: int  # operations or gaps in the slow pass less those in the median one


@dataclass(frozen=True)
class SlowPass:
    """A pass that takes longer than the median one, with what differs, the most time first."""

    index: int  # of the passes
    longer_ns: int
    excess: tuple[Excess, ...]


@dataclass(frozen=True)
class Passes:
    """The steps of one device, one by one; a period that may also be a layer is a pass."""

    device: int
    what: Literal["step", "pass"]
    median: int  # index of the pass of median length
    passes: tuple[Pass, ...]
    slow: tuple[SlowPass, ...]  # the slowest first
    warm_up: int = 0  # the first passes, in which the program still compiles, loads or tunes


@dataclass(frozen=True)
class MemoryPoint:
    """Bytes in use from a moment on."""

    time_ns: int
    allocated_bytes: int
    reserved_bytes: int | None  # held by PyTorch's allocator


@dataclass(frozen=True)
class MemoryUse:
    """Device memory over time, as far as the trace has allocations; ``points`` keeps the peaks of what it thins out."""

    device: int
    source: Literal["cuda", "pytorch"]
    events: int
    first_bytes: int
    last_bytes: int
    peak_bytes: int
    peak_at_ns: int
    peak_reserved_bytes: int | None
    points: tuple[MemoryPoint, ...]


@dataclass(frozen=True)
class Judged:
    """The part of a device's time that findings judge: the steady part of the trace, or all of it where none is known."""

    device: int
    label: str  # "step x 10", "the part that repeats", "the whole trace"
    repeats: bool  # whether a structure of repetition is known; else the whole trace is judged
    passes: int  # how often the part repeats; 0 where that is not known
    start_ns: int
    end_ns: int
    span_ns: int
    of_span_ns: int  # from the device's first operation to the end of its last one
    operations: int
    of_operations: int
    ledger: Ledger  # of the judged part: sums to its span
    idle: Idle  # sums to the ledger's idle time


@dataclass(frozen=True)
class Finding:
    """One claim with what it rests on; ``gain_ns`` is an upper bound of what the judged part would gain.

    A cause stands before its consequences: they are other findings of the device, of which little is left without it.
    """

    id: str
    claim: str
    gain_ns: int
    where: str
    evidence: dict[str, Any]
    try_: str
    device: int | None = None
    gain_share: float | None = None  # of the judged time; None where the gain lies outside of it
    passes: int = 0  # passes of the judged part: gain_ns / passes is the gain per pass; 0 where that is not known
    left_ns: int | None = None  # of a consequence: what it would still gain at most once its cause is gone
    consequences: tuple[Finding, ...] = ()
    on_other_devices: tuple[Finding, ...] = ()  # the same finding there, each with its own consequences

    @property
    def all(self) -> tuple[Finding, ...]:
        """The finding, its consequences, and the same on other devices."""
        parts = (*self.consequences, *self.on_other_devices)
        return (self, *(finding for part in parts for finding in part.all))


@dataclass(frozen=True)
class SlowStep:
    """A step that takes longer than the others; ``more_of`` is the owner of the ledger that it has more of than the
    median step, by ``more_ns``."""

    number: int
    start_ns: int
    span_ns: int
    more_of: str
    more_ns: int


@dataclass(frozen=True)
class Steps:
    """The periods of a program's repeating work on one device (METRICS: steps). They tile from start_ns to end_ns."""

    device: int
    count: int
    source: Literal[
        "profiler", "range", "anchor"
    ]  # its step marks, a family of ranges, a kernel that occurs once per step
    name: str  # the family or the kernel
    coverage: float  # share of the launches of the repeating part in steps of the usual make-up
    sure: bool  # whether the trace shows that these are steps; else a period may also be a layer
    median_ns: float  # this and the next two of the steps after the warm-up
    p90_ns: float
    p99_ns: float
    start_ns: int
    end_ns: int
    set_up_ns: int  # device time before the first step
    warm_up: int  # leading steps that are longer than the others
    tail_ns: int  # device time after the last step
    slow: tuple[SlowStep, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """All numbers of one trace."""

    source: Source
    windows: tuple[Window, ...]
    kernels: tuple[Kernel, ...]
    ranges: tuple[Range, ...]
    findings: tuple[Finding, ...] = ()
    judged: tuple[Judged, ...] = ()  # one per device
    notes: tuple[Note, ...] = ()
    steps: tuple[Steps, ...] = ()
    schema_version: int = SCHEMA_VERSION
    families: tuple[Family, ...] = ()
    passes: tuple[Passes, ...] = ()
    range_tree: tuple[RangeNode, ...] = ()
    copy_sizes: tuple[CopySize, ...] = ()
    memory: tuple[MemoryUse, ...] = ()
