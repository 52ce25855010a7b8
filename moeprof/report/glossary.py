"""The words of a report and what they mean; docs/metrics.md has the definitions in full."""

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("clean time", "Time of an iteration with no profiler attached, between CUDA events. It alone makes the verdict."),
    ("verdict", "FASTER or SLOWER when the whole 95 % interval of the ratio of medians lies beyond the machine's own noise, SAME when it lies within it, UNCLEAR otherwise."),
    ("A against A", "How far the ratio of two halves of one variant's own rounds strays from 1: the noise of this machine."),
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
