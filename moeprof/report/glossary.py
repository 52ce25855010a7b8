"""The words of a report and what they mean; docs/reference/metrics.md has the definitions in full."""

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("clean time", "Time of an iteration with no profiler attached, between CUDA events. It alone makes the verdict."),
    ("verdict", "FASTER or SLOWER when the whole interval of a typical round's speed-up lies beyond A against A, SAME when it lies within it (1 % at least, 3 % at most), UNCLEAR otherwise."),
    ("a typical round", "How many times as fast the variant is in a round, next to the baseline of the same round: the median over all averages of two rounds (Hodges and Lehmann). It decides; what moves a whole round cancels."),
    ("A against A", "How far the baseline may be from itself, by twins: it is timed twice in every round, in two processes; by halves, in older captures: two halves of one variant's rounds."),
    ("disturbed round", "One in which the GPU was held back by heat or brake, its clock fell, or another process used it. It is repeated, kept, and does not count."),
    ("time ledger", "Every nanosecond of an iteration has one owner: compute, else communication, else copy, migration, memset; what is left is idle."),
    ("exposed copy", "Copy time during which no kernel runs. Only this part costs time."),
    ("idle: launch", "The GPU waits while the host is inside the very call that launches the next operation."),
    ("idle: sync", "The GPU waits while the host is inside a synchronising call."),
    ("idle: host", "The GPU waits while the host is in neither: Python, the framework, the operating system."),
    ("idle: dependency", "The next operation was already submitted and waits for an event or another stream."),
    ("idle: edge", "Before the first or after the last operation of the iteration."),
    ("of the limit", "The best possible time over the measured one. For a pipeline of L stages of compute c and transfer x: max(L c + x, c + L x). For a roofline: max(FLOPs / F, bytes / B)."),
    ("useful FLOPs, declared bytes", "What the work needs, whoever does it: no padding, no masked or dropped part, each byte once."),
    ("yardstick", "What a library reaches on the bare work, measured in the same run: for an MoE layer torch.bmm on the experts' two GEMMs with equal loads and nothing around them."),
    ("overlap efficiency", "(T_serial − T) / (T_serial − T_ideal): 1 is perfect, 0 gains nothing, below 0 overlapping costs more than it hides."),
    ("A, Q", "A: duration of a kernel's launch call. Q: from the call's end to the kernel's start. Q is launch latency only where the stream was empty; else the kernel queued behind work."),
    ("ceiling", "What the link reaches with large copies and nothing beside them, measured in the same run."),
    ("NVTX range, projected", "From the start of the first to the end of the last GPU operation that was launched inside the range."),
    ("proof", "The destination was poisoned, the variant ran, and every element was compared with a reference of higher precision."),
)  # fmt: skip
