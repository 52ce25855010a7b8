"""The closing paragraph of a report: what was slow, what changed, why it is faster or not, what bounds it now, what is left.

Every number in it is, as formatted here, in a table of the same report: times, speed-ups and the fraction of the limit in the
variants' table, parts of an iteration in the waterfall (or the ledger), counters and intensities in theirs.
"""

from __future__ import annotations

import re

from moeprof.analysis.waterfall import Bar
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.kernels.roofline_points import WHOLE, Point
from moeprof.report.narrative.sentences import STARVED
from moeprof.units import amount, ms, percent, rate

WORTH_NAMING = 0.02  # of an iteration, from which a part of it is named
SLOW_TRACE = 1.1  # traced over clean time, from which parts of the traced iteration stand beside its own length: they can exceed the clean time
AT_THE_LIMIT = 0.95  # of the limit, from which nothing is left without other work
CALLED = {
    "compute": "compute", "exposed communication": "exposed communication", "exposed copy": "exposed copies",
    "exposed migration": "exposed page migration", "exposed memset": "exposed memsets", "idle: launch": "waits for launches",
    "idle: sync": "waits for a synchronizing host", "idle: host": "waits for host code",
    "idle: dependency": "waits between dependent operations", "idle: edge": "idle time at the edges",
}  # fmt: skip


def summary(comparison: Comparison) -> tuple[str, ...]:
    """The paragraph, sentence by sentence; it states what is not known, and why."""
    before, after = comparison.row(comparison.baseline), comparison.row(comparison.optimized)
    if before is None or after is None or before.name == after.name:
        sentences = _alone(comparison)
    else:
        sentences = (
            _slow(before),
            _changed(comparison, before, after),
            *_why(comparison, before, after),
            _counters(comparison),
            _bound(comparison, after),
            _left(comparison, after),
        )
    return tuple(sentence for sentence in (*sentences, *_doubts(comparison)) if sentence)


def three_lines(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """What was slow, why it changed, and what is left, a label and a line each; shares where traced and clean times would be mixed."""
    before, after = comparison.row(comparison.baseline), comparison.row(comparison.optimized)
    if before is None or after is None or before.name == after.name:
        return ()
    why = (
        _moved(comparison, faster=after.verdict is None or after.verdict.word != "SLOWER")
        if comparison.waterfall
        else ""
    )
    left = " ".join(text for text in (_bound(comparison, after), _left(comparison, after)) if text)
    lines = (("Slow", _shares(before)), ("Why", why), ("Left", left))
    return tuple((label, text) for label, text in lines if text)


def _shares(row: Row) -> str:
    """The clean time, and the largest parts of the traced iteration in percent of it."""
    if row.time_ns is None:
        return ""
    parts = [f"{CALLED[b.label]} {percent(b.before_ns / row.traced_ns)}" for b in _parts(row)[:3] if row.traced_ns]
    where = f" Of its traced iteration: {', '.join(parts)}." if parts else ""
    return f"{row.name} takes {ms(row.time_ns.value)} per iteration.{where}"


def _alone(comparison: Comparison) -> tuple[str, ...]:
    """One variant, or none that ran: what it does with its time."""
    row = next((r for r in comparison.rows if r.time_ns is not None or r.ledger is not None), None)
    if row is None:
        return ("Nothing ran that could be timed or traced.",)
    return (
        "There is only one variant, so there is nothing to compare.",
        _slow(row),
        _bound(comparison, row),
        _left(comparison, row),
    )


def _slow(row: Row) -> str:
    """The time per iteration, and its largest parts."""
    spent = _parts(row)
    largest = ", ".join(f"{CALLED[part.label]} {ms(part.before_ns)}" for part in spent[:2])
    where = f" {_of_trace(row)}: {largest}" if spent else ""
    if row.time_ns is None:
        return f"{row.name} was not timed.{where}{'.' if where else ''}"
    return f"{row.name} takes {ms(row.time_ns.value)} per iteration.{where}{'.' if where else ''}"


def _of_trace(row: Row) -> str:
    """What the parts of an iteration are parts of, with its length where that differs much from the clean time."""
    if not _slowed_by_profiler(row):
        return "When traced"
    return f"Its traced iteration takes {ms(row.traced_ns)}, since the profiler slows the host"


def _slowed_by_profiler(row: Row) -> bool:
    return row.time_ns is not None and bool(row.traced_ns) and (row.traced_ns or 0) > SLOW_TRACE * row.time_ns.value


def _parts(row: Row) -> list[Bar]:
    """Where an iteration goes, the largest part first, without what is too small to be named."""
    return [b for b in row.parts if b.before_ns >= WORTH_NAMING * (row.traced_ns or 0)]


def _changed(comparison: Comparison, before: Row, after: Row) -> str:
    """What the other side is."""
    if before.name.startswith("A: ") and after.name.startswith("B: "):
        differing = [str(n.evidence.get("what")) for n in comparison.unlike]
        if differing:
            return f"Capture B differs from A in more than the code ({', '.join(differing)}): part of the difference may come from that."
        return "Capture B ran the same workload with the same parameters. Its rounds were not interleaved with the rounds of A."
    if not after.summary or re.search(r"\d", after.summary):  # a number there is in no table
        return f"{after.name} does the same work in a different way."
    return f"{after.name} does the work differently: {after.summary}."


def _why(comparison: Comparison, before: Row, after: Row) -> tuple[str, ...]:
    """The outcome, and the parts of the iteration that explain it."""
    word = after.verdict.word if after.verdict else ""
    if after.verdict is None or after.time_ns is None:
        return ("It was not timed against the baseline, so there is no verdict.", _moved(comparison, faster=True))
    ratio, time = f"{after.verdict.speedup.value:.2f}", ms(after.time_ns.value)
    outcome = {
        "FASTER": f"It takes {time} per iteration, {ratio} times the speed.",
        "SLOWER": f"It is slower: {time} per iteration, {ratio} times the speed.",
        "SAME": f"The time does not change: {time} per iteration.",
        "UNCLEAR": f"Whether it is faster is unclear: {time} against {_time(before)}. The rounds are too few or too noisy to decide.",
    }
    return outcome[word], _moved(comparison, faster=word != "SLOWER")


def _time(row: Row) -> str:
    return ms(row.time_ns.value) if row.time_ns else "an unknown time"


def _moved(comparison: Comparison, faster: bool) -> str:
    """The step of the waterfall that explains the outcome most, and the largest one against it."""
    if not comparison.waterfall:
        return "There is no trace of both variants: the times show how much changed, not where. Capture with nsys or torch.profiler to see where."
    total = sum(b.before_ns for b in comparison.waterfall)
    large = [b for b in comparison.waterfall if abs(b.delta_ns) >= WORTH_NAMING * total]
    with_it = sorted((b for b in large if (b.delta_ns < 0) == faster), key=lambda b: -abs(b.delta_ns))
    against = sorted((b for b in large if (b.delta_ns < 0) != faster), key=lambda b: -abs(b.delta_ns))
    if not large:
        return "No part of the traced iteration changed by enough to report."
    changes = " and ".join(
        f"time in {CALLED[b.label]} {'falls' if b.delta_ns < 0 else 'rises'} from {ms(b.before_ns)} to {ms(b.after_ns)}"
        for b in with_it[:2]
    )
    text = f"In the traced iteration, {changes}" if changes else "No part of the trace explains it"
    if against:
        bar = against[0]
        text += (
            f", while time in {CALLED[bar.label]} {'rises' if bar.delta_ns > 0 else 'falls'} by {ms(abs(bar.delta_ns))}"
        )
    return text + "."


def _counters(comparison: Comparison) -> str:
    """The hardware counter that moved most."""
    counters = comparison.counted
    if counters is None:
        return "There are no hardware counters of both sides, so what happens inside the kernels is not known."
    row = counters.moved
    if row is None or row.before is None or row.after is None:
        return "The hardware counters of both sides are nearly equal."
    return f"The counter that changed most is {row.label} of the {row.scope}: from {amount(row.kind, row.before)} to {amount(row.kind, row.after)}."


def _bound(comparison: Comparison, row: Row) -> str:
    """What bounds the variant now."""
    if row.traced_ns and row.host_wait_ns >= STARVED * row.traced_ns:
        return f"{row.name} is host-bound: the GPU waits for the host for a large part of the iteration."
    if row.limit_ratio is not None and row.limit_ratio >= AT_THE_LIMIT:
        return f"{row.name} reaches {percent(row.limit_ratio)} of the best possible speed, which {_limit(comparison)} sets."
    point = next((p for p in comparison.roofline.of(row.name) if p.kernel != WHOLE), None) or next(
        iter(comparison.roofline.of(row.name)), None
    )
    if point is not None and (side := _side(comparison, point)):
        return f"The longest kernel of {row.name} has an arithmetic intensity of {rate(point.intensity)} FLOP/byte: it is {side}-bound."
    spent = _parts(row)
    return "Compute is now the largest part of the iteration." if spent and spent[0].label == "compute" else ""


def _limit(comparison: Comparison) -> str:
    """What the limit of the work is made of."""
    if comparison.roof is not None:
        moved = "memory traffic" if comparison.roof.pieces is None else "the exchange between ranks"
        return "arithmetic" if comparison.roof.bound == "FLOPs" else moved
    if comparison.limit is not None:
        return "the transfer" if comparison.limit.transfer_ns > comparison.limit.compute_ns else "compute"
    return "the work itself"


def _side(comparison: Comparison, point: Point) -> str:
    """What bounds a point: memory left of the ridge, compute right of it; "" without both roofs."""
    top = {
        unit: max((c.per_s for c in comparison.roofline.ceilings if c.unit == unit), default=0.0)
        for unit in ("FLOP/s", "byte/s")
    }
    if not all(top.values()):
        return ""
    return "memory" if point.intensity < top["FLOP/s"] / top["byte/s"] else "compute"


def _left(comparison: Comparison, row: Row) -> str:
    """What could still be gained, and where."""
    spent = _parts(row)
    rest = [b for b in spent if b.label != "compute"]
    whole = "traced iteration" if _slowed_by_profiler(row) else "iteration"
    where = f"nearly all of the {whole} is compute"
    if rest:
        most = (
            f"most of the {whole} is" if rest[0] == spent[0] else f"the largest part of the {whole} besides compute is"
        )
        where = f"{most} {CALLED[rest[0].label]}, {ms(rest[0].before_ns)}"
    if row.limit_ratio is None:
        return (
            f"Without a limit it is not known how much is left; {where}."
            if _parts(row)
            else "Without a limit or a trace it is not known how much is left."
        )
    if row.limit_ratio >= AT_THE_LIMIT:
        return "Only less work would make it much faster."
    return f"{row.name} reaches {percent(row.limit_ratio)} of the best possible speed; {where}."


def _doubts(comparison: Comparison) -> tuple[str, ...]:
    """What makes the numbers unreliable."""
    doubts = []
    if any(n.id == "no-gpu" for n in comparison.notes):
        doubts.append("Everything ran on the CPU, so nothing here describes a GPU.")
    if any(r.proof_ok is False for r in comparison.rows):
        doubts.append("A variant failed its proof: its result is wrong, so its time does not count.")
    return tuple(doubts)
