"""The answer of one trace: what is slow, why, what to try. Every number is in the tables of the same page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moeprof.analysis.model import Analysis, Finding, Judged, Window
from moeprof.findings.rules.common import OWNERS
from moeprof.report.figures.timeline_places import EXAMPLES
from moeprof.report.narrative import finding as told
from moeprof.report.narrative.finding import TRUST
from moeprof.units import ms, percent, short_kernel, size

WORTH_SAYING = 0.05  # of the judged time: less lost time than this, without a finding, is nothing to act on
LEAST_TOLD = 0.005  # of the judged time: less is not in the sentence
MOSTLY = 0.5  # of the time that the headline names: a smaller gain is reported beside it

# what a device does instead of computing: field of the ledger -> words after its name
LOST = {
    "idle_ns": "is idle",
    "exposed_copy_ns": "only copies",
    "exposed_comm_ns": "only communicates",
    "exposed_migration_ns": "only migrates pages",
    "exposed_memset_ns": "only sets memory",
}
# rule -> the cause in a few words; ``OWNERS`` has the parts of the ledger that it costs
CLAUSES: dict[str, str] = {
    "profiler-overhead": "the profiler is at work",
    "pageable-copy": "copies use pageable host memory",
    "allocator-in-loop": "memory is allocated in the loop",
    "first-iteration": "code is compiled, loaded or tuned",
    "slow-loading": "the program loads",
    "sync-api": "the host waits for the GPU before it launches more",
    "tiny-copies": "many small copies are made one by one",
    "migration-stall": "pages of managed memory migrate on demand",
    "copy-engine-contention": "copies queue behind larger ones of another stream",
    "same-stream-copy": "the copies run in the stream of the kernels",
    "late-issue": "copies are issued too late to hide",
    "link-bound": "more bytes cross the link than compute can hide",
    "exposed-communication": "no kernel runs beside the communication",
    "launch-bound": "launches take longer than the kernels",
    "graph-opportunity": "the host launches the same kernels in each pass, too slowly",
    "host-bound": "the host is late, busy outside CUDA",
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
        judged: how much of the trace was judged.
        follows: what else follows from the cause, on this device and on others.
        finding: the one that the answer names; None where there is none.
        shared: numbers (from 1) of the findings on the same device whose gain overlaps with it.
    """

    headline: str
    slow: str = ""
    why: str = ""
    evidence: str = ""
    remedy: str = ""
    gain: str = ""
    judged: str = ""
    follows: str = ""
    finding: Finding | None = None
    shared: tuple[int, ...] = ()


def answer(analysis: Analysis, cpus: frozenset[int] = frozenset()) -> Answer:
    """The answer of a trace that was analysed as a whole, from its judged part; ``cpus`` are the devices that are no GPU."""
    finding = analysis.findings[0] if analysis.findings else None
    part = _part(analysis, finding)
    if part is None:
        return Answer("The trace contains no work of a GPU")
    names = {p.device: "The CPU" if p.device in cpus else f"GPU {p.device}" for p in _parts(analysis)}
    name = names[part.device]
    if finding is None:
        return Answer(_quiet(name, part), _slow(name, part), judged=told.judged(part))
    follows = (told.follows(finding, names), told.elsewhere(finding, names))
    return Answer(
        _headline(name, part, finding),
        _slow(name, part),
        _sentence(finding.claim),
        _evidence(finding),
        _sentence(finding.try_),
        told.gain(finding),
        told.judged(part),
        " ".join(text for text in follows if text),
        finding,
        _shared(analysis.findings, finding, part),
    )


def _parts(analysis: Analysis) -> tuple[Judged, ...]:
    """What was judged on each device; windows where the analysis was made without findings."""
    return analysis.judged or tuple(_whole(window) for window in analysis.windows)


def _whole(window: Window) -> Judged:
    return Judged(
        window.device, "the whole trace", False, 0, window.start_ns, window.end_ns, window.span_ns, window.span_ns,
        window.launch.kernels, window.launch.kernels, window.ledger, window.idle,
    )  # fmt: skip


def device_of(finding: Finding) -> int | None:
    """The device of a finding; a user's rule may name it in ``where`` alone."""
    match = re.match(r"device (-?\d+)", finding.where)
    return finding.device if finding.device is not None else int(match[1]) if match else None


def _part(analysis: Analysis, finding: Finding | None) -> Judged | None:
    """The part that the answer is about: that of the finding's device, else the one that computes the smallest share."""
    parts = [p for p in _parts(analysis) if p.span_ns > 0]
    of_device = [p for p in parts if finding is not None and p.device == device_of(finding)]
    return min(of_device or parts, key=lambda p: (p.ledger.compute_ns / p.span_ns, p.device), default=None)


def _headline(name: str, part: Judged, finding: Finding) -> str:
    if finding.id in TRUST:
        return f"The trace of {name} is not complete: records were dropped, and idle time may be work"
    if finding.id in NARROW:
        return f"{name} is not filled: {NARROW[finding.id]}, up to {_share(finding.gain_ns, part)} of the time"
    if finding.id == "copy-like-kernels":
        return f"{name} moves memory by kernels for up to {_share(finding.gain_ns, part)} of the time: {_moved_by(finding)}"
    if finding.id == "first-iteration":
        return f"Before and in its first pass {name} waits up to {ms(finding.gain_ns)}: {CLAUSES[finding.id]}"
    if finding.id == "slow-loading":
        return f"Loading costs up to {ms(finding.gain_ns)} before {name} repeats its work, in which no rule finds anything wrong"
    clause, owners = CLAUSES.get(finding.id, f"finding {finding.id}"), OWNERS.get(finding.id, tuple(LOST))
    first = getattr(part.ledger, owners[0]) if finding.id in OWNERS else 0
    owner = owners[0] if first >= finding.gain_ns else max(owners, key=lambda o: getattr(part.ledger, o))
    lost = getattr(part.ledger, owner)
    if finding.gain_ns >= MOSTLY * lost:
        return f"{name} {LOST[owner]} {_share(lost, part)} of the time: {clause}"
    return (
        f"{name} {LOST[owner]} {_share(lost, part)} of the time, up to {_share(finding.gain_ns, part)} because {clause}"
    )


def _moved_by(finding: Finding) -> str:
    """The kernel that moves most, and what kind of copy it makes."""
    evidence = finding.evidence
    return f"{short_kernel(str(evidence['kernel']))} ({evidence['kind']}) takes {percent(evidence['kernel_share'])}"


def _quiet(name: str, part: Judged) -> str:
    """No rule finds a cause: the largest part that is not compute, where it is worth a word."""
    owner = max(LOST, key=lambda o: getattr(part.ledger, o))
    lost = getattr(part.ledger, owner)
    if lost < WORTH_SAYING * part.span_ns:
        return f"{name} computes {_share(part.ledger.compute_ns, part)} of the time: no rule finds anything wrong"
    return f"{name} {LOST[owner]} {_share(lost, part)} of the time, and no rule finds a cause"


def _slow(name: str, part: Judged) -> str:
    """What of the judged time is not compute, the largest part first."""
    ledger, span = part.ledger, part.span_ns
    parts = sorted(((getattr(ledger, owner), verb) for owner, verb in LOST.items()), key=lambda lost: -lost[0])
    phrases = [
        f"computes {ms(ledger.compute_ns)}",
        *(f"{verb} {ms(ns)}" for ns, verb in parts if ns >= LEAST_TOLD * span),
    ]
    listed = " and ".join(text for text in (", ".join(phrases[:-1]), phrases[-1]) if text)
    return f"{name} {listed} of {ms(span)}."


def _evidence(finding: Finding) -> str:
    """The operation that the rule took as an example."""
    example = next((finding.evidence[k] for k in EXAMPLES if finding.evidence.get(k)), None)
    if not isinstance(example, dict) or "operation" not in example:
        return ""
    call = f", launched by {example['call']}" if example.get("call") else ""
    length = f" of {ms(example['duration_ns'])}" if "duration_ns" in example else ""
    worst = example.get("worst")
    idle = (
        f" The worst stretch: {ms(worst['idle_ns'])} idle within {ms(worst['to_ns'] - worst['from_ns'])}."
        if worst
        else ""
    )
    moved = f", median {size(finding.evidence['median_bytes'])}" if "median_bytes" in finding.evidence else ""
    return f"One place: {short_kernel(str(example['operation']))}{length} in stream {example['stream']}{call}{moved}.{idle}"


def _shared(findings: tuple[Finding, ...], first: Finding, part: Judged) -> tuple[int, ...]:
    """Findings of the same device whose gain must overlap with the first one's: both do not fit into the time that they share."""
    if first.id not in OWNERS or first.gain_share is None:
        return ()
    owning = ((n, f) for n, f in enumerate(findings, 1) if f is not first and f.id in OWNERS)
    here = (
        (n, f) for n, candidate in owning for f in (candidate, *candidate.on_other_devices) if f.device == first.device
    )
    return tuple(n for n, f in here if f.gain_share is not None and _overlaps(first, f, part))


def _overlaps(first: Finding, second: Finding, part: Judged) -> bool:
    owners = {*OWNERS[first.id], *OWNERS[second.id]}
    common = {*OWNERS[first.id]} & {*OWNERS[second.id]}
    return bool(common) and first.gain_ns + second.gain_ns > sum(getattr(part.ledger, owner) for owner in owners)


def _share(ns: int, part: Judged) -> str:
    return percent(min(ns / part.span_ns, 1.0))


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
