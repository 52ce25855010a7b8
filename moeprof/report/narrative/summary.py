"""The closing paragraph of a report: what was slow, what changed, why it is faster or not, what bounds it now, what is left.

Every number in it stands, as formatted here, in a table of the same report: times, speed-ups and the fraction of the limit in the
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
AT_THE_LIMIT = 0.95  # of the limit, from which nothing is left without other work
CALLED = {
    "compute": "compute", "exposed communication": "communication that nothing hides", "exposed copy": "copies that nothing hides",
    "exposed migration": "page migration", "exposed memset": "clearing memory", "idle: launch": "waiting for launches",
    "idle: sync": "waiting while the host synchronises", "idle: host": "waiting for the host's code",
    "idle: dependency": "waiting between dependent operations", "idle: edge": "idling at the edges",
}  # fmt: skip


def summary(comparison: Comparison) -> tuple[str, ...]:
    """The paragraph, sentence by sentence; says what cannot be said, and why."""
    before, after = comparison.row(comparison.baseline), comparison.row(comparison.optimized)
    if before is None or after is None or before.name == after.name:
        found = _alone(comparison)
    else:
        found = (
            _slow(before),
            _changed(comparison, before, after),
            *_why(comparison, before, after),
            _counters(comparison),
            _bound(comparison, after),
            _left(comparison, after),
        )
    return tuple(sentence for sentence in (*found, *_doubts(comparison)) if sentence)


def _alone(comparison: Comparison) -> tuple[str, ...]:
    """One variant, or none that ran: what it does with its time."""
    row = next((r for r in comparison.rows if r.time_ns is not None or r.ledger is not None), None)
    if row is None:
        return ("Nothing ran here that could be timed or traced.",)
    return (
        "With one variant there is nothing to compare.",
        _slow(row),
        _bound(comparison, row),
        _left(comparison, row),
    )


def _slow(row: Row) -> str:
    """How long an iteration takes, and what takes most of it."""
    spent = _parts(row)
    where = f" Most of it goes into {CALLED[spent[0].label]}, {ms(spent[0].before_ns)} when traced" if spent else ""
    if spent[1:]:
        where += f", followed by {CALLED[spent[1].label]} with {ms(spent[1].before_ns)}"
    if row.time_ns is None:
        return f"{row.name} was not timed.{where}{'.' if where else ''}"
    return f"An iteration of {row.name} takes {ms(row.time_ns.value)}.{where}{'.' if where else ''}"


def _parts(row: Row) -> list[Bar]:
    """Where an iteration goes, the largest part first, without what is too small to be named."""
    return [b for b in row.parts if b.before_ns >= WORTH_NAMING * (row.traced_ns or 0)]


def _changed(comparison: Comparison, before: Row, after: Row) -> str:
    """What the other side is."""
    if before.name.startswith("A: ") and after.name.startswith("B: "):
        differing = [str(n.evidence.get("what")) for n in comparison.unlike]
        if differing:
            return f"Capture B differs from A in more than the code ({', '.join(differing)}), so not all of the difference need come from it."
        return (
            "Capture B ran the same workload with the same parameters; its rounds were not interleaved with those of A."
        )
    what = after.summary if after.summary and not re.search(r"\d", after.summary) else "another way to do the same work"
    return f"{after.name} tries this: {what}."


def _why(comparison: Comparison, before: Row, after: Row) -> tuple[str, ...]:
    """The outcome, and the parts of the iteration that explain it."""
    word = after.verdict.word if after.verdict else ""
    if after.verdict is None or after.time_ns is None:
        return ("It was not timed against that, so there is no verdict.", _moved(comparison, faster=True))
    ratio, time = f"{after.verdict.speedup.value:.2f}", ms(after.time_ns.value)
    outcome = {
        "FASTER": f"That brings an iteration down to {time}, {ratio} times the speed.",
        "SLOWER": f"It costs time instead: {time} an iteration, {ratio} times the speed.",
        "SAME": f"The time stays what it was: {time}.",
        "UNCLEAR": f"Whether it helps is open: {time} stand against {_time(before)}, but the rounds are too few or too noisy to tell.",
    }
    return outcome[word], _moved(comparison, faster=word != "SLOWER")


def _time(row: Row) -> str:
    return ms(row.time_ns.value) if row.time_ns else "an unknown time"


def _moved(comparison: Comparison, faster: bool) -> str:
    """The step of the waterfall that explains the outcome most, and the largest one against it."""
    if not comparison.waterfall:
        return "No trace of both was taken, so the times say how much and not where; nsys or torch.profiler would tell."
    total = sum(b.before_ns for b in comparison.waterfall)
    told = [b for b in comparison.waterfall if abs(b.delta_ns) >= WORTH_NAMING * total]
    with_it = sorted((b for b in told if (b.delta_ns < 0) == faster), key=lambda b: -abs(b.delta_ns))
    against = sorted((b for b in told if (b.delta_ns < 0) != faster), key=lambda b: -abs(b.delta_ns))
    if not told:
        return "No part of the traced iteration moved by enough to be named."
    said = " and on ".join(f"{CALLED[b.label]} goes from {ms(b.before_ns)} to {ms(b.after_ns)}" for b in with_it[:2])
    text = f"In the traced iteration the time spent on {said}" if said else "No part of the trace explains it"
    if against:
        bar = against[0]
        text += f", while {ms(abs(bar.delta_ns))} {'more' if bar.delta_ns > 0 else 'less'} go into {CALLED[bar.label]}"
    return text + "."


def _counters(comparison: Comparison) -> str:
    """The hardware counter that moved most."""
    found = comparison.counted
    if found is None:
        return "Hardware counters of both sides are missing, so what the kernels do inside is not known."
    row = found.moved
    if row is None or row.before is None or row.after is None:
        return "The hardware counters that were collected are much alike on both sides."
    return f"In the {row.scope} it is {row.label} that changed most, from {amount(row.kind, row.before)} to {amount(row.kind, row.after)}."


def _bound(comparison: Comparison, row: Row) -> str:
    """What holds it back now."""
    if row.traced_ns and row.host_wait_ns >= STARVED * row.traced_ns:
        return "Now the host sets the pace: the GPU waits for it for a good part of an iteration."
    if row.limit_ratio is not None and row.limit_ratio >= AT_THE_LIMIT:
        return f"{_limit(comparison)} now decides: {percent(row.limit_ratio)} of the limit is reached."
    point = next((p for p in comparison.roofline.of(row.name) if p.kernel != WHOLE), None) or next(
        iter(comparison.roofline.of(row.name)), None
    )
    if point is not None and (side := _side(comparison, point)):
        return f"What computes longest in {row.name} does {rate(point.intensity)} FLOP for each byte of device memory, under the roof of {side}."
    spent = _parts(row)
    return "Compute sets the pace now." if spent and spent[0].label == "compute" else ""


def _limit(comparison: Comparison) -> str:
    """What the limit of the work is made of."""
    if comparison.roof is not None:
        moved = "Memory traffic" if comparison.roof.pieces is None else "The exchange between ranks"
        return "Arithmetic" if comparison.roof.bound == "FLOPs" else moved
    if comparison.limit is not None:
        return "The transfer" if comparison.limit.transfer_ns > comparison.limit.compute_ns else "The compute"
    return "The limit of the work"


def _side(comparison: Comparison, point: Point) -> str:
    """Which roof a point lies under: left of the ridge memory, right of it arithmetic; "" without both roofs."""
    top = {
        unit: max((c.per_s for c in comparison.roofline.ceilings if c.unit == unit), default=0.0)
        for unit in ("FLOP/s", "byte/s")
    }
    if not all(top.values()):
        return ""
    return "memory" if point.intensity < top["FLOP/s"] / top["byte/s"] else "arithmetic"


def _left(comparison: Comparison, row: Row) -> str:
    """What could still be gained, and where."""
    spent = _parts(row)
    rest = [b for b in spent if b.label != "compute"]
    where = "next to all of an iteration is compute"
    if rest:
        most = "most of an iteration is now" if rest[0] == spent[0] else "outside compute it is mostly"
        where = f"{most} {CALLED[rest[0].label]}, {ms(rest[0].before_ns)}"
    if row.limit_ratio is None:
        return (
            f"How much is left cannot be said without a limit; {where}."
            if _parts(row)
            else "How much is left cannot be said without a limit or a trace."
        )
    if row.limit_ratio >= AT_THE_LIMIT:
        return "Little is left to gain without doing less work."
    return f"With {percent(row.limit_ratio)} of the limit reached there is room left; {where}."


def _doubts(comparison: Comparison) -> tuple[str, ...]:
    """What the reader must know before believing any of it."""
    said = []
    if any(n.id == "no-gpu" for n in comparison.notes):
        said.append("All of this ran on the CPU, so none of it says how a GPU behaves.")
    if any(r.proof_ok is False for r in comparison.rows):
        said.append("A variant failed its proof: it does other work, and its time counts for nothing.")
    return tuple(said)
