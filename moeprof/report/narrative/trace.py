"""The answer of one trace: what is slow, why, what to try. Every number is in the tables of the same page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moeprof.analysis.model import Analysis, Finding, Window
from moeprof.report.figures.timeline_places import EXAMPLES
from moeprof.units import ms, percent, short_kernel, size

WORTH_SAYING = 0.05  # of the window: less lost time than this, without a finding, is nothing to act on
SAME_CAUSE = 0.8  # of the largest gain: a cause whose removal alone gains that much leads its consequences
LEAST_TOLD = 0.005  # of the window: less is not in the sentence
MOSTLY = 0.5  # of the time that the headline names: a smaller gain is reported beside it
CONSEQUENCES = ("host-bound", "launch-bound", "graph-opportunity")  # the launch queue is empty: often a wait emptied it
CAUSES = ("profiler-overhead", "pageable-copy", "allocator-in-loop", "first-iteration", "sync-api")
TRUST = ("dropped-records",)

# what a device does instead of computing: field of the ledger -> words after its name
LOST = {
    "idle_ns": "is idle",
    "exposed_copy_ns": "only copies",
    "exposed_comm_ns": "only communicates",
    "exposed_migration_ns": "only migrates pages",
    "exposed_memset_ns": "only sets memory",
}
# rule -> the parts of the ledger that its cause costs (the first where the gain fits into it), and the cause in a few words
CLAUSES: dict[str, tuple[tuple[str, ...], str]] = {
    "profiler-overhead": (("idle_ns",), "the profiler is at work"),
    "pageable-copy": (("exposed_copy_ns", "idle_ns"), "copies use pageable host memory"),
    "allocator-in-loop": (("idle_ns",), "memory is allocated and freed in the loop"),
    "first-iteration": (("idle_ns",), "code is compiled, loaded or tuned in the measured part"),
    "sync-api": (("idle_ns", "exposed_copy_ns"), "the host waits for the GPU before it launches more"),
    "tiny-copies": (("idle_ns", "exposed_copy_ns"), "many small copies are made one by one"),
    "migration-stall": (("exposed_migration_ns", "idle_ns"), "pages of managed memory migrate on demand"),
    "copy-engine-contention": (("exposed_copy_ns", "idle_ns"), "copies queue behind larger ones of another stream"),
    "same-stream-copy": (("exposed_copy_ns",), "the copies run in the stream of the kernels"),
    "late-issue": (("exposed_copy_ns",), "copies are issued too late to hide"),
    "link-bound": (("exposed_copy_ns",), "more bytes cross the link than compute can hide"),
    "launch-bound": (("idle_ns",), "launches take longer than the kernels"),
    "graph-opportunity": (("idle_ns",), "the host launches the same kernels in each pass, too slowly"),
    "host-bound": (("idle_ns",), "the host is late, busy outside CUDA"),
}  # fmt: skip
# rules about kernels that leave the device empty while it computes: no part of the ledger shows that
NARROW = {
    "legacy-default-stream": "streams wait for the legacy default stream",
    "serialized-streams": "streams run in turn although their work could share it",
    "low-concurrency": "kernels that fill a small part of it run one at a time",
}


@dataclass(frozen=True)
class Answer:
    """The sentences before any number of a page. ``why``, ``remedy`` and ``gain`` are empty where no rule finds a cause.

    Args:
        finding: the one that the answer names; None where there is none.
        shared: numbers (from 1) of the findings on the same device whose gain overlaps with it.
    """

    headline: str
    slow: str = ""
    why: str = ""
    evidence: str = ""
    remedy: str = ""
    gain: str = ""
    finding: Finding | None = None
    shared: tuple[int, ...] = ()


def answer(analysis: Analysis, cpus: frozenset[int] = frozenset()) -> Answer:
    """The answer of a trace that was analysed as a whole; ``cpus`` are the devices that are no GPU."""
    finding = leading(analysis.findings)
    window = _window(analysis, finding)
    if window is None:
        return Answer("The trace contains no work of a GPU")
    name = "The CPU" if window.device in cpus else f"GPU {window.device}"
    if finding is None:
        return Answer(_quiet(name, window), _slow(name, window))
    return Answer(
        _headline(name, window, finding),
        _slow(name, window),
        _sentence(finding.claim),
        _evidence(finding),
        _sentence(finding.try_),
        _gain(finding, window),
        finding,
        _shared(analysis.findings, finding, window),
    )


def leading(findings: tuple[Finding, ...]) -> Finding | None:
    """The finding to act on first: the largest, or the cause on its device without which most of it would be gone."""
    if not findings:
        return None
    largest = findings[0]
    if largest.id not in CONSEQUENCES:
        return largest
    causes = (f for f in findings if f.id in CAUSES and f.where == largest.where)
    return next((f for f in causes if f.gain_ns >= SAME_CAUSE * largest.gain_ns), largest)


def device_of(finding: Finding) -> int | None:
    """The device that a finding names, where it does."""
    match = re.match(r"device (-?\d+)", finding.where)
    return int(match[1]) if match else None


def _window(analysis: Analysis, finding: Finding | None) -> Window | None:
    """The window that the answer is about: that of the finding's device, else the one that computes the smallest part."""
    windows = [w for w in analysis.windows if w.span_ns > 0]
    of_device = [w for w in windows if finding is not None and w.device == device_of(finding)]
    return min(of_device or windows, key=lambda w: (w.ledger.compute_ns / w.span_ns, w.device), default=None)


def _headline(name: str, window: Window, finding: Finding) -> str:
    if finding.id in TRUST:
        return f"The trace of {name} is not complete: records were dropped, and idle time may be work"
    if finding.id in NARROW:
        return f"{name} is not filled: {NARROW[finding.id]}, up to {_share(finding.gain_ns, window)} of the time"
    if finding.id == "first-iteration" and finding.gain_ns > window.ledger.idle_ns:
        return f"Before and in its first pass {name} waits up to {ms(finding.gain_ns)}: {CLAUSES[finding.id][1]}"
    parts, clause = CLAUSES.get(finding.id, (tuple(LOST), f"finding {finding.id}"))
    first = getattr(window.ledger, parts[0]) if finding.id in CLAUSES else 0
    part = parts[0] if first >= finding.gain_ns else max(parts, key=lambda p: getattr(window.ledger, p))
    lost = getattr(window.ledger, part)
    if finding.gain_ns >= MOSTLY * lost:
        return f"{name} {LOST[part]} {_share(lost, window)} of the time: {clause}"
    return f"{name} {LOST[part]} {_share(lost, window)} of the time, up to {_share(finding.gain_ns, window)} because {clause}"


def _quiet(name: str, window: Window) -> str:
    """No rule finds a cause: the largest part that is not compute, where it is worth a word."""
    ledger = window.ledger
    part = max(LOST, key=lambda p: getattr(ledger, p))
    lost = getattr(ledger, part)
    if lost < WORTH_SAYING * window.span_ns:
        return f"{name} computes {_share(ledger.compute_ns, window)} of the time: no rule finds anything wrong"
    return f"{name} {LOST[part]} {_share(lost, window)} of the time, and no rule finds a cause"


def _slow(name: str, window: Window) -> str:
    """What of the window is not compute, the largest part first."""
    ledger, span = window.ledger, window.span_ns
    parts = sorted(((getattr(ledger, p), verb) for p, verb in LOST.items()), key=lambda part: -part[0])
    told = [f"computes {ms(ledger.compute_ns)}", *(f"{verb} {ms(ns)}" for ns, verb in parts if ns >= LEAST_TOLD * span)]
    listed = " and ".join(text for text in (", ".join(told[:-1]), told[-1]) if text)
    return f"{name} {listed} of {ms(span)}."


def _evidence(finding: Finding) -> str:
    """The operation that the rule took as an example."""
    example = next((finding.evidence[k] for k in EXAMPLES if finding.evidence.get(k)), None)
    if not isinstance(example, dict) or "operation" not in example:
        return ""
    call = f", launched by {example['call']}" if example.get("call") else ""
    length = f" of {ms(example['duration_ns'])}" if "duration_ns" in example else ""
    moved = f", median {size(finding.evidence['median_bytes'])}" if "median_bytes" in finding.evidence else ""
    return f"One place: {short_kernel(str(example['operation']))}{length} in stream {example['stream']}{call}{moved}."


def _gain(finding: Finding, window: Window) -> str:
    if finding.id in TRUST:
        return ""
    gain = f"at most {ms(finding.gain_ns)}"
    return gain if finding.gain_ns > window.span_ns else f"{gain}, {_share(finding.gain_ns, window)} of the window"


def _shared(findings: tuple[Finding, ...], first: Finding, window: Window) -> tuple[int, ...]:
    """Findings about the empty launch queue of the same device whose gain must overlap: both do not fit into the lost time."""
    if first.id not in (*CAUSES, *CONSEQUENCES):
        return ()
    alike, lost = (*CONSEQUENCES, *CAUSES), window.span_ns - window.ledger.compute_ns
    others = ((n, f) for n, f in enumerate(findings, 1) if f is not first and f.where == first.where and f.id in alike)
    return tuple(n for n, f in others if f.gain_ns + first.gain_ns > lost)


def _share(ns: int, window: Window) -> str:
    return percent(ns / window.span_ns)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
