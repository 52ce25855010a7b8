"""The words of a report and what they mean; docs/reference/metrics.md has the definitions in full."""

from __future__ import annotations

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
