"""The words of a report and what they mean; docs/reference/metrics.md has the definitions in full."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from moeprof.report.page import Block, Bullets, Facts, Page, Paragraph, Section

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("clean time", "Time per iteration with no profiler attached, between CUDA events. The verdict rests on it alone."),
    ("verdict", "FASTER or SLOWER if the whole confidence interval is outside the A/A noise. SAME if it is inside (1 % at least, 3 % at most). UNCLEAR otherwise."),
    ("a typical round", "The speed-up of a variant over the baseline of the same round: the median of all averages of two rounds (the Hodges-Lehmann estimate). It decides the verdict. Effects on a whole round cancel."),
    ("noise", "The A/A noise: the baseline timed against itself. By twins: the baseline is timed twice per round, in two processes. By halves (older captures): two halves of one variant's rounds."),
    ("disturbed round", "A round in which heat or a power brake slowed the GPU, its clock fell, or another process used it. It is repeated, saved, and does not count."),
    ("time ledger", "Every nanosecond of an iteration has one owner: compute, else communication, else copy, migration, memset. The rest is idle."),
    ("exposed copy", "Copy time during which no kernel runs. Only this part costs time."),
    ("idle: launch", "The GPU waits while the host is inside the call that launches the next operation."),
    ("idle: sync", "The GPU waits while the host is inside a synchronizing call."),
    ("idle: host", "The GPU waits while the host runs other code: Python, the framework, the operating system."),
    ("idle: dependency", "The next operation is already submitted and waits for an event or another stream."),
    ("idle: edge", "Time before the first or after the last operation of the iteration."),
    ("of the limit", "The fraction of the best possible speed: the best possible time over the measured time. For a pipeline of L stages of compute c and transfer x: max(L c + x, c + L x). For a roofline: max(FLOPs / F, bytes / B)."),
    ("useful FLOPs, declared bytes", "What the work needs in any implementation: no padding, no masked or dropped part, each byte once."),
    ("yardstick", "What a library reaches on the bare work in the same run. For an MoE layer: torch.bmm on the two GEMMs of the experts, with equal loads."),
    ("overlap efficiency", "(T_serial − T) / (T_serial − T_ideal). 1 is perfect. 0 gains nothing. Below 0, overlapping costs more than it hides."),
    ("A, Q", "A: duration of a kernel's launch call. Q: time from the end of the call to the start of the kernel. Q is launch latency only if the stream was empty; otherwise the kernel was queued behind other work."),
    ("ceiling", "What the link reaches with large copies and no other work, measured in the same run."),
    ("NVTX range, projected", "From the start of the first to the end of the last GPU operation that was launched inside the range."),
    ("proof", "The destination was poisoned, the variant ran, and every element was compared with a reference of higher precision."),
)  # fmt: skip

# The words of the page of one trace: (word, pattern that finds it, meaning).
TRACE_TERMS: tuple[tuple[str, str, str], ...] = (
    ("owner", r"\bowner\b", "Every nanosecond of a device has one owner: compute, else communication, copy, migration, memset. The rest is idle."),
    ("exposed", r"\bexposed\b", "Time that nothing hides. A copy or communication is exposed while no compute kernel runs. A kernel is exposed while no other kernel runs. Only exposed time is lost."),
    ("hidden", r"\bhidden\b", "The share of the time of copies or communication during which compute kernels run."),
    ("idle: launch", r"\bidle: launch\b", "The GPU waits while the host is inside the call that launches the next operation."),
    ("idle: sync", r"\bidle: sync\b", "The GPU waits while the host is inside a synchronizing call."),
    ("idle: host", r"\bidle: host\b", "The GPU waits while the host runs other code: Python, the framework, the operating system."),
    ("idle: dependency", r"\bidle: dependency\b", "The next operation is already submitted and waits for an event or another stream."),
    ("idle: edge", r"\bidle: edge\b", "Time before the first or after the last operation."),
    ("idle before", r"\bidle before\b", "Idle time of the device that ended when one of these kernels began."),
    ("step", r"\bsteps?\b", "One repetition of the program's loop, from its first operation to the first one of the next step."),
    ("pass", r"\bpass(es)?\b", "One period of the program's repeating work. The trace does not show whether it is a step or a layer."),
    ("gain at most", r"\bgain at most\b", "An upper bound of what the recording would be shorter without the cause. Gains of several findings may be the same time."),
    ("wait in the queue", r"\bwait in the queue\b", "From the end of the launch call to the start of the kernel. It costs time only where the stream was empty."),
    ("delay", r"\bdelay\b", "The wait in the queue of kernels whose stream was empty when the call began: launch latency."),
    ("with a launch call", r"\bwith a launch call\b", "Kernels whose launch call is in the recording. Numbers of launches rest on these."),
    ("pinned", r"\bpinned\b", "Host memory that cannot be paged out. Copies from it can run beside kernels."),
    ("pageable", r"\bpageable\b", "Ordinary host memory. The driver copies it through a buffer, and the host waits."),
    ("H2D", r"\bH2D\b", "A copy from the host to a device."),
    ("D2H", r"\bD2H\b", "A copy from a device to the host."),
    ("D2D", r"\bD2D\b", "A copy within a device."),
    ("P2P", r"\bP2P\b", "A copy from one device to another."),
)  # fmt: skip


def used(page: Page) -> tuple[tuple[str, str], ...]:
    """The words of TRACE_TERMS that occur in the texts and tables of a page, with their meanings."""
    text = "\n".join(part for section in page.sections for part in _texts(section))
    return tuple((word, meaning) for word, pattern, meaning in TRACE_TERMS if re.search(pattern, text, re.IGNORECASE))


def occurring(terms: Sequence[tuple[str, str]], sections: Iterable[Section]) -> tuple[tuple[str, str], ...]:
    """The words that occur in sections, with their meanings; of "waiting, moving" one is enough."""
    text = "\n".join(part for section in sections for part in _texts(section))
    return tuple(
        (word, meaning)
        for word, meaning in terms
        if any(re.search(rf"\b{re.escape(part.removeprefix('a '))}", text, re.IGNORECASE) for part in word.split(", "))
    )


def pattern_of(word: str) -> str:
    """The regular expression that finds a word; the word itself where it is not of TRACE_TERMS."""
    return next((pattern for term, pattern, _ in TRACE_TERMS if term == word), rf"\b{re.escape(word)}\b")


def _texts(section: Section) -> Iterator[str]:
    yield from (section.title, section.note)
    for table in section.tables:
        yield from (table.caption, *table.header, *(cell for row in table.rows for cell in row))
    for block in (*section.above, *section.below):
        yield from _of_block(block)
    for part in section.parts:
        yield from _texts(part)


def _of_block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield block.text
    elif isinstance(block, Bullets):
        yield from (item.text for item in block.items)
    elif isinstance(block, Facts):
        yield from (fact.whole for fact in block.lines)
