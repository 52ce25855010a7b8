"""Every warning that moeprof can give: what was seen, what it means, what to do. Warnings are data.

A note is stored in the manifest or the analysis with its evidence and shown in every form of output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Note:
    """One warning: its ``id``, its text with the evidence filled in, and the evidence as data."""

    id: str
    severity: Severity
    text: str
    evidence: dict[str, Any] = field(default_factory=dict)


# id -> (severity, text). The names in braces are the evidence.
CATALOGUE: dict[str, tuple[Severity, str]] = {
    # capture
    "no-gpu": ("info", "no CUDA GPU here: {what} ran on the CPU"),
    "no-nsys": ("info", "nsys not found: the trace was collected with torch.profiler ({why})"),
    "no-ncu": ("info", "no hardware counters: {why}"),
    "no-trace": ("warning", "no trace of {variant}: {why}"),
    "no-clock": (
        "warning",
        "{variant}: the clock of host {hosts} could not be measured against its traces: hosts are joined by the ends of collectives",
    ),
    "hosts-differ": (
        "warning",
        "host {host} is not as rank 0's host is ({how}): its ranks may differ for that reason",
    ),
    "host-missing": ("warning", "the part of host {hosts} is missing: its capture ended before it was whole"),
    "timing-only": ("info", "timed only, as asked for (--tools none): there is no trace to explain the verdict"),
    "variant-skipped": ("info", "{variant} SKIPPED: {why}"),
    "interrupted": ("warning", "the capture was interrupted: it holds {kept}"),
    "redacted": (
        "info",
        "the profiled process's environment, command line and host name were removed from {file}; "
        "the raw report that holds them {raw}",
    ),
    "counters-partial": (
        "info",
        "{variant}: ncu counted the first {counted} kernels of one iteration (--ncu-kernels)",
    ),
    "no-flops": (
        "info",
        "ncu {version} did not count FLOPs: {why}; the roofline of this capture rests on what the variants declare",
    ),
    "busy-gpu": ("warning", "another process used the GPU during the run ({processes}): times may be disturbed"),
    "rounds-left-out": (
        "warning",
        "{count} of {total} rounds were disturbed ({why}): they are kept and left out of the verdict, which rests on {used}",
    ),
    "condition": (
        "warning",
        "{state} held in most rounds (phases of {where}): it is a condition of this run and no round is left out for it",
    ),
    "power-capped": (
        "info",
        "the power cap held the clock back in most rounds (phases of {where}): times are those under the cap",
    ),
    "twin-shared": (
        "info",
        "the baseline's twin shares its process ({why}): A against A does not see what differs between two processes",
    ),
    "no-twin": (
        "warning",
        "the baseline's twin was lost ({why}): A against A comes from halves of the rounds, which sees less",
    ),
    "clocks-fell": ("warning", "the SM clock fell from {before_mhz} to {after_mhz} MHz during the run ({reasons})"),
    "spread-high": (
        "warning",
        "{variant}: the middle half of its times spreads over {spread_percent:.0f} % of the median",
    ),
    "traced-slower": (
        "warning",
        "{variant} took {ratio:.2f} times as long under the profiler as without: its trace explains, "
        "but the clean times decide",
    ),
    "chip-lacks": ("warning", "not counted: this chip's ncu has no {names}"),
    "metrics-unchecked": (
        "info",
        "ncu did not list the counters of this chip ({command}): only those of its own set were asked for",
    ),
    "no-page": ("info", "no {page}: {why}"),
    "recorded-counters": ("info", "the counters are the few that the capture recorded: {why}"),
    "dram-differs": (
        "warning",
        "{kernel}: DRAM is at {given:.2f} % by ncu, at {formula:.2f} % by bytes over peak bytes: ncu's takes a busier unit into account",
    ),
    "unlike": ("warning", "the two captures differ in {what}: {before} and {after}"),
    "unlike-code": ("info", "the two captures are of different code: checkout {before} and {after}"),
    # trace
    "one-run": (
        "info",
        "one traced run of each: this explains a difference, it does not prove one (moeprof capture times in rounds)",
    ),
    "graph-level": (
        "warning",
        "{replays} CUDA graph replays were traced whole: they count as busy time; kernels and copies inside them, "
        "and their overlap, cannot be known (trace with --cuda-graph-trace=node)",
    ),
    "unjoined": (
        "warning",
        "device {device}: {joined} of {total} kernels join to a launch call; launch numbers rest on those",
    ),
    "withheld": (
        "warning",
        "{what} is withheld: only {share_percent:.0f} % of its events are known ({needed_percent:.0f} % needed)",
    ),
    "open-ranges": ("info", "{count} NVTX ranges were still open when the trace ended; they are left out"),
    "cpu-operators": ("info", "no GPU activity in this trace: CPU operators stand in for kernels, one lane a thread"),
    "diagnostic": ("info", "the profiler reported: {text}"),
    # many ranks
    "rank-derived": ("info", "ranks are told by {how}"),
    "rank-clock": (
        "info",
        "clocks: {text}; the ends of common collectives still differ by {residual_us:.1f} us (the worst rank's median)",
    ),
    "rank-clock-within": (
        "info",
        "times of ranks on different hosts compare to within {uncertainty_us:.1f} us: a skew below that may be the clocks', "
        "one above it is real",
    ),
    "rank-clock-off": (
        "warning",
        "clocks were measured to within {uncertainty_us:.1f} us, and the ends of common collectives differ by {residual_us:.1f} us "
        "(the worst rank's median): either a rank leaves them late each time, or a clock moved; skew below that says nothing",
    ),
    "rank-no-clock": ("warning", "arrival skew and waiting are withheld: {why}"),
    "rank-refused": ("warning", "{what} is not (all) matched across ranks: {why}"),
    "rank-no-bandwidth": ("info", "no bus bandwidth of {what}: {why}"),
    "rank-doubt": (
        "warning",
        "{what}: in only {share_percent:.0f} % of the matched ones there is a moment at which all ranks were in it: "
        "the order or the clocks may be wrong",
    ),
    "rank-absent": (
        "warning",
        "{what}: {present} of {size} ranks are here; the last to arrive may be an absent one, waiting is a lower bound",
    ),
    "rank-stray": ("info", "{count} kernels of ranks on the GPUs of other ranks are left out"),
    "rank-unread": ("warning", "{count} of the group's ranks have no numbers: {why}"),
    "no-gpu-work": ("warning", "the trace holds no GPU work"),
}


def note(id: str, /, **evidence: Any) -> Note:
    """The note ``id`` with its evidence; the evidence must fill every name of its text."""
    severity, text = CATALOGUE[id]
    return Note(id, severity, text.format(**evidence), evidence)
