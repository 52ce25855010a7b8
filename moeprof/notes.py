"""Every warning of moeprof: what was measured, what it means, what to do.

A note is data: the manifest or the analysis contains it with its evidence, and every output shows it.
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


# id -> (severity, text); names in braces are evidence.
CATALOGUE: dict[str, tuple[Severity, str]] = {
    # capture
    "no-gpu": ("info", "no CUDA GPU: {what} ran on the CPU"),
    "functional-check": ("info", "{what} is a technique of GPUs: its times on a CPU mean nothing"),
    "no-nsys": ("info", "nsys was not found ({why}). torch.profiler collected the trace"),
    "no-ncu": ("info", "no hardware counters: {why}"),
    "no-trace": ("warning", "no trace of {variant}: {why}"),
    "no-clock": (
        "warning",
        "{variant}: the clock of host {hosts} could not be measured against its traces. Ends of collectives "
        "align the hosts",
    ),
    "hosts-differ": (
        "warning",
        "host {host} differs from the host of rank 0 ({how}). Its ranks may be slower or faster for that reason",
    ),
    "host-missing": ("warning", "the part of host {hosts} is missing: its capture ended before it was complete"),
    "timing-only": ("info", "timed only (--tools none): there is no trace to explain the verdict"),
    "not-proven": (
        "warning",
        "same work: not proven. Nothing compared what the commands compute (--check COMMAND, or --check-file FILE)",
    ),
    "few-rounds": (
        "warning",
        "one round takes {round_s:.0f} s, so {rounds} rounds fit in the {budget_s:.0f} s of clean timing. A verdict "
        "needs {needed} (--budget SECONDS, or --rounds N)",
    ),
    "variant-skipped": ("info", "{variant} SKIPPED: {why}"),
    "recording-window": ("info", "only a part of the run was recorded: {window}"),
    "recording-partial": ("warning", "the recording is partial: {by} ended it after {seconds:.1f} s"),
    "raw-report": (
        "warning",
        "the raw report was saved as {file}, because it could not be exported here. It contains the environment, the "
        "command line and the name of the host",
    ),
    "two-runs": (
        "info",
        "the program ran twice. The trace is of the first run; the counters are of the second one, in which ncu ran "
        "each counted kernel several times",
    ),
    "interrupted": ("warning", "the capture was interrupted. It contains {kept}"),
    "redacted": (
        "info",
        "the environment, command line and host name of the profiled process were removed from {file}; the raw "
        "report with them {raw}",
    ),
    "counters-partial": (
        "info",
        "{variant}: ncu counted the first {counted} kernels of one iteration (--ncu-kernels)",
    ),
    "counters-of-program": (
        "info",
        "ncu counted {counted} launches, of the kernels that took most time in the later half of the trace (--ncu-kernels); "
        "without a trace, the first launches",
    ),
    "no-flops": (
        "info",
        "ncu {version} did not count FLOPs: {why}. The roofline uses the FLOPs that the variants declare",
    ),
    "busy-gpu": ("warning", "another process used the GPU during the run ({processes}): times may be disturbed"),
    "rounds-left-out": (
        "warning",
        "{count} of {total} rounds were disturbed ({why}). They are saved but do not count: the verdict uses "
        "{used} rounds",
    ),
    "condition": (
        "warning",
        "{state} held in most rounds (phases of {where}). This is a condition of the run: no round is left out for it",
    ),
    "power-capped": (
        "info",
        "the power cap lowered the clock in most rounds (phases of {where}): all times are under the cap",
    ),
    "twin-shared": (
        "info",
        "the baseline and its twin share a process ({why}): the A/A noise does not include differences between "
        "processes",
    ),
    "no-twin": (
        "warning",
        "the baseline's twin failed ({why}). The A/A noise comes from halves of the rounds, which detect less noise",
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
    "chip-lacks": ("warning", "not counted: ncu does not have {names} on this chip"),
    "metrics-unchecked": (
        "info",
        "ncu did not list the counters of this chip ({command}). Only the counters of ncu's own set were requested",
    ),
    "no-page": ("info", "no {page}: {why}"),
    "recorded-counters": ("info", "only the counters that the capture recorded are shown: {why}"),
    "dram-differs": (
        "warning",
        "{kernel}: ncu reports DRAM at {given:.2f} %, bytes over peak bytes are {formula:.2f} %. ncu includes a "
        "busier unit",
    ),
    "unlike": ("warning", "the two captures differ in {what}: {before} and {after}"),
    "unlike-shapes": (
        "warning",
        "GPU {device}: {resized} of {total} kernels that run equally often per {unit} have other launch shapes. One "
        "{unit} may be other work in B, such as another batch size",
    ),
    "unlike-count": (
        "warning",
        "GPU {device}: {kernels} kernels run {ratio:.3g} times as often per {unit} in B. One {unit} may be more work "
        "there",
    ),
    "unlike-code": ("info", "the two captures are of different code: checkout {before} and {after}"),
    # trace
    "one-run": (
        "info",
        "one traced run of each. This explains a difference but does not prove one (moeprof capture times in rounds)",
    ),
    "graph-level": (
        "warning",
        "{replays} CUDA graph replays were traced whole and count as busy time. Kernels, copies and overlap "
        "inside them are not known (trace with --cuda-graph-trace=node)",
    ),
    "unjoined": (
        "warning",
        "device {device}: {joined} of {total} kernels join to a launch call. Launch numbers use only these kernels",
    ),
    "withheld": (
        "warning",
        "{what} is not reported: only {share_percent:.0f} % of its events are known, {needed_percent:.0f} % are needed",
    ),
    "open-ranges": ("info", "{count} NVTX ranges were still open at the end of the trace. They are left out"),
    "cpu-operators": (
        "info",
        "no GPU activity in this trace: CPU operators are shown in place of kernels, one lane per thread",
    ),
    "diagnostic": ("info", "the profiler reported: {text}"),
    # many ranks
    "rank-derived": ("info", "the ranks were identified by {how}"),
    "rank-clock": (
        "info",
        "clocks: {text}. The ends of common collectives still differ by {residual_us:.1f} us (the median of the worst rank)",
    ),
    "rank-clock-within": (
        "info",
        "times of ranks on different hosts compare to within {uncertainty_us:.1f} us. Smaller skew may come "
        "from the clocks, larger skew is real",
    ),
    "rank-clock-off": (
        "warning",
        "clocks were measured to within {uncertainty_us:.1f} us, but the ends of common collectives differ by "
        "{residual_us:.1f} us (the median of the worst rank). Either a rank leaves them late each time, or a "
        "clock moved. Skew below that difference has no meaning",
    ),
    "rank-no-clock": ("warning", "arrival skew and waiting are not reported: {why}"),
    "rank-refused": ("warning", "{what}: not all collectives are matched across ranks: {why}"),
    "rank-no-bandwidth": ("info", "no bus bandwidth of {what}: {why}"),
    "rank-doubt": (
        "warning",
        "{what}: all ranks were in the collective at the same moment in only {share_percent:.0f} % of the "
        "matched ones. The order or the clocks may be wrong",
    ),
    "rank-absent": (
        "warning",
        "{what}: {present} of {size} ranks are here. The last to arrive may be an absent rank, so waiting is a "
        "lower bound",
    ),
    "rank-stray": ("info", "{count} kernels that ranks ran on the GPUs of other ranks are left out"),
    "rank-unread": ("warning", "{count} ranks of the group have no numbers: {why}"),
    "no-gpu-work": ("warning", "the trace contains no GPU work"),
}


def note(id: str, /, **evidence: Any) -> Note:
    """The note ``id`` with its evidence.

    Raises:
        KeyError: there is no such note, or the evidence lacks a name of its text.
    """
    severity, text = CATALOGUE[id]
    return Note(id, severity, text.format(**evidence), evidence)
