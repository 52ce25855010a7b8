"""Commands that were compared, in sentences: the verdict, whether the work is the same, and where the time went."""

from __future__ import annotations

from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.report.narrative import sentences
from moeprof.report.narrative.narrative import Narrative
from moeprof.report.narrative.summary import CALLED, WORTH_NAMING
from moeprof.storage.manifest import RUN, Manifest
from moeprof.units import ms, signed_ms

NAMED = 2  # parts of a unit that are named


def narrate(manifest: Manifest, comparison: Comparison) -> Narrative:
    """The sentences about commands; no word of them is about a workload's iterations."""
    row, base = comparison.row(comparison.optimized), comparison.row(comparison.baseline)
    closing = tuple(
        text for text in (_timed(manifest), _where(manifest, comparison, base, row), _scope(manifest)) if text
    )
    return Narrative(f"{_verdict(manifest, comparison)} {_same_work(manifest)}", (), closing)


def unit_of(manifest: Manifest) -> str:
    """The unit of work of the traces, in words."""
    return "a whole run" if manifest.unit == RUN else f"one {manifest.unit!r}"


def _verdict(manifest: Manifest, comparison: Comparison) -> str:
    row, base = comparison.row(comparison.optimized), comparison.row(comparison.baseline)
    if row is not None and base is not None and row.verdict is not None:
        return sentences.sentence(comparison)
    failed = [v for v in manifest.variants if v.status == "failed"]
    if failed:
        return f"No verdict: {failed[0].reason}."
    return "No verdict: the commands were not timed."


def _same_work(manifest: Manifest) -> str:
    """What proves that the commands do the same work."""
    if not manifest.checked:
        return "Same work: not proven."
    proofs = [v.proof for v in manifest.variants if v.proof is not None and v.name != manifest.baseline]
    if not proofs:
        return f"Same work: not proven, because the check did not run ({manifest.checked})."
    wrong = next((p for p in proofs if not p.ok), None)
    if wrong is not None:
        return f"The check failed: {manifest.checked}."
    return f"Same work, proven: {manifest.checked}."


def _timed(manifest: Manifest) -> str:
    return f"Timed without a profiler: {manifest.clock}."


def _where(manifest: Manifest, comparison: Comparison, base: Row | None, row: Row | None) -> str:
    """The largest steps between the traces of one unit."""
    if base is None or row is None or base.traced_ns is None or row.traced_ns is None:
        return "There is no trace of both commands, so where the time went is not known."
    least = WORTH_NAMING * max(base.traced_ns, row.traced_ns)
    steps = sorted((b for b in comparison.waterfall if abs(b.delta_ns) >= least), key=lambda b: -abs(b.delta_ns))[
        :NAMED
    ]
    unit = unit_of(manifest)
    times = f"In the traces {unit} takes {ms(base.traced_ns)} and {ms(row.traced_ns)}"
    if not steps:
        return f"{times}; no part of it changed by enough to report."
    changes = " and ".join(f"{CALLED[b.label]} {signed_ms(b.delta_ns)}" for b in steps)
    return f"{times}: {changes}."


def _scope(manifest: Manifest) -> str:
    """What 'iteration' means in the tables, and what the traces leave out."""
    if manifest.unit == RUN:
        return "An iteration in the tables is a whole run, from its first operation on the device to its last."
    return f"An iteration in the tables is {unit_of(manifest)}, the instance of median length."
