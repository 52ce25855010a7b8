"""The sentences of a report: every number in them is in a table of the same report."""

from __future__ import annotations

from moeprof.analysis.model import CallCount
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.stats.verdict import LEAST_MARGIN, Verdict
from moeprof.units import ms, percent, rate

STARVED = 0.10  # share of an iteration that the device waits for the host, from which it is reported
LINK_BOUND = 0.95  # share of an iteration in which the link is busy, from which the link is the limit
WORTH_SAYING = 0.01  # share of an iteration that copies take, from which they are reported
SLOWED = 1.03  # compute time against the baseline's, from which it is reported


def sentence(comparison: Comparison) -> str:
    """The verdict in one sentence."""
    row, base = comparison.row(comparison.optimized), comparison.row(comparison.baseline)
    if row is None or base is None or row.verdict is None or row.time_ns is None or base.time_ns is None:
        return _without_pair(comparison)
    judged = row.verdict
    claims = {
        "FASTER": f"{row.name} is {judged.speedup.value:.2f} times as fast as {base.name}",
        "SLOWER": f"{row.name} is slower than {base.name}: {1 / judged.speedup.value:.2f} times its time",
        "SAME": f"{row.name} and {base.name} take the same time",
        "UNCLEAR": f"whether {row.name} is faster than {base.name} is unclear: ratio {judged.speedup.value:.3f}",
    }
    times = f"{ms(base.time_ns.value)} to {ms(row.time_ns.value)}"
    noise = _noise(judged)
    tail = f" {judged.reason[:1].upper()}{judged.reason[1:]}; to settle it: {judged.settle}." if judged.settle else ""
    return f"{claims[judged.word]} ({times}; {_typical(judged)}; {noise}).{tail}"


def verdict(judged: Verdict) -> str:
    """A verdict on its own: the word, the numbers that it rests on, and the reason."""
    tail = f"; to settle it: {judged.settle}" if judged.settle else ""
    return f"{judged.word}: ratio {judged.speedup.value:.3f} ({_typical(judged)}; {_noise(judged)}), since {judged.reason}{tail}"


def _noise(judged: Verdict) -> str:
    """How much the baseline differs from itself, and how that was measured."""
    how = "the baseline timed against itself" if judged.noise_from == "twins" else "each side's rounds, split in halves"
    return f"noise {percent(judged.noise_ratio)}: {how}"


def _typical(judged: Verdict) -> str:
    """The interval that decided; where there were too few rounds for one, that of the ratio of medians."""
    if judged.effect is None:
        return f"95 % interval {judged.speedup.low:.3f} to {judged.speedup.high:.3f}"
    return f"{judged.effect.low:.3f} to {judged.effect.high:.3f} times in a typical round, {100 * judged.confidence:.4g} % sure"


def _without_pair(comparison: Comparison) -> str:
    timed = [r for r in comparison.rows if r.time_ns is not None]
    if not timed:
        return "Nothing was timed: this report shows what the trace contains."
    best = min(timed, key=lambda r: r.time_ns.value if r.time_ns else 0.0)
    assert best.time_ns is not None
    return f"There is no pair to compare; {best.name} takes {ms(best.time_ns.value)} per iteration."


def lesson(comparison: Comparison, shows: str) -> str:
    """What the workload teaches, as far as this capture confirms it; empty without a verdict."""
    row = comparison.row(comparison.optimized)
    if not shows or row is None or row.verdict is None:
        return ""
    if row.verdict.word != "FASTER":
        return f"not confirmed here, where {row.name} is {row.verdict.word}: {shows}"
    ties = [r.name for r in comparison.rows if _ties(r, row, comparison)]
    if not ties:
        return shows
    verb = "are" if len(ties) > 1 else "is"
    listed = " and ".join(text for text in (", ".join(ties[:-1]), ties[-1]) if text)
    return f"{shows}; here {listed} {verb} as fast as {row.name}"


def _ties(rival: Row, row: Row, comparison: Comparison) -> bool:
    """Whether another variant that gains is as fast as the optimized one: within the noise, or the least margin of a verdict."""
    if rival.name in (row.name, comparison.baseline) or rival.verdict is None or row.verdict is None:
        return False
    if rival.verdict.word != "FASTER" or rival.time_ns is None or row.time_ns is None:
        return False
    return rival.time_ns.value <= row.time_ns.value * (1 + max(row.verdict.noise_ratio, LEAST_MARGIN))


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """Why each variant gained or lost, from its representative traced iteration."""
    return tuple(text for row in comparison.rows if row.ledger is not None and (text := _why(row, comparison)))


def _why(row: Row, comparison: Comparison) -> str:
    parts = [
        part
        for part in (
            _gained(row),
            _achieved(row),
            _hidden(row),
            _starved(row),
            _bound(row, comparison),
            _slowed(row, comparison),
            _graph(row),
        )
        if part
    ]
    return f"{row.name}: {'; '.join(parts)}." if parts else ""


def _gained(row: Row) -> str:
    if row.efficiency is None or row.verdict is None:
        return ""
    if row.efficiency < 0:
        start = "loses: its" if row.verdict.word == "SLOWER" else "its"
        return f"{start} overlap efficiency is {row.efficiency:.3f}, below zero: overlapping costs more than it hides"
    return f"its overlap efficiency is {row.efficiency:.3f} (1 is perfect)"


def _achieved(row: Row) -> str:
    """The fractions of the roofline and of the yardstick."""
    if row.work is None:
        return ""
    parts = [f"{percent(row.limit_ratio)} of the best possible speed"] if row.limit_ratio is not None else []
    if row.work.yardstick_ratio is not None:
        parts.append(f"{percent(row.work.yardstick_ratio)} of the yardstick")
    return f"it reaches {rate(row.work.tflop_per_s)} TFLOP/s on useful FLOPs" + (
        f" ({', '.join(parts)})" if parts else ""
    )


def _hidden(row: Row) -> str:
    busy = row.copy_busy_ns
    if not _copies_matter(row) or row.hidden_ratio is None:
        return ""
    if not row.hidden_ratio:
        return f"none of its {ms(busy)} of copies overlaps with compute"
    return f"{percent(row.hidden_ratio)} of its {ms(busy)} of copies overlap with compute, {ms(row.exposed_copy_ns)} are exposed"


def _copies_matter(row: Row) -> bool:
    return bool(row.copy_busy_ns) and row.copy_busy_ns >= WORTH_SAYING * (row.traced_ns or 0)


def _starved(row: Row) -> str:
    """The GPU waits for the host: for what, and what the host does."""
    if row.ledger is None or row.idle is None or row.launch is None or not row.traced_ns or not row.calls:
        return ""
    if row.host_wait_ns < STARVED * row.traced_ns:
        return ""
    calls = ", ".join(
        f"{sum(c.count for c in of)} {kind}" for kind, of in _by_kind(row.launch.calls) if kind != "other"
    )
    return (
        f"the host cannot keep up: in the traced iteration the GPU has {ms(row.gpu_work_ns)} of work and waits {ms(row.host_wait_ns)} for it "
        f"(inside launch calls {ms(row.idle.launch_ns)}, in host code {ms(row.idle.host_ns)}, in synchronizing calls "
        f"{ms(row.idle.sync_ns)}), while the host makes {row.calls} CUDA calls per iteration ({calls}) that take {ms(row.call_ns or 0)}"
    )


def _by_kind(calls: tuple[CallCount, ...]) -> list[tuple[str, list[CallCount]]]:
    words = {"launch": "kernel launches", "graph_launch": "graph launches", "copy": "copies", "copy_sync": "blocking copies",
             "memset": "memsets", "sync": "synchronizations", "event": "event calls", "alloc": "allocations"}  # fmt: skip
    kinds = sorted({c.kind for c in calls})
    return [(words.get(kind, "other"), [c for c in calls if c.kind == kind]) for kind in kinds]


def _bound(row: Row, comparison: Comparison) -> str:
    if row.link_gb_per_s is None or not row.traced_ns or not _copies_matter(row):
        return ""
    busy = row.link_busy_ratio or 0.0
    at_ceiling = f", {percent(row.link_ratio)} of its measured ceiling" if row.link_ratio else ""
    if busy >= LINK_BOUND:
        return f"the link is busy {percent(busy)} of the iteration at {row.link_gb_per_s:.1f} GB/s{at_ceiling}: the link is the limit"
    if row.name == comparison.baseline:
        return f"its link runs at {row.link_gb_per_s:.1f} GB/s{at_ceiling}"
    return ""


def _slowed(row: Row, comparison: Comparison) -> str:
    if row.compute_ratio is None or row.compute_ratio < SLOWED:
        return ""
    baseline = comparison.row(comparison.baseline)
    why = ", whose GPU does not compute while it copies" if baseline and _copies_matter(baseline) else ""
    return f"its kernels take {row.compute_ratio:.2f} times as long as the baseline's{why}"


def _graph(row: Row) -> str:
    if row.launch is None or not row.launch.graph_launches:
        return ""
    count = row.launch.kernels_in_graphs
    return f"{row.launch.graph_launches} graph launch replaces the launch{'es' if count != 1 else ''} of {count} kernel{'s' if count != 1 else ''}"
