"""The ranks of a capture: which process on which device, how long each took by itself, and which of them failed."""

from __future__ import annotations

from statistics import median

from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.storage.manifest import Manifest, Rank, VariantRecord


def table(manifest: Manifest) -> Table:
    """One row a rank of each variant; no rows where nothing ran in ranks."""
    header = ("variant", "rank", "host", "GPU", "clock offset", "own time", "proof error", "state")
    rows = tuple(_row(record, rank) for record in manifest.variants for rank in record.ranks)
    return Table("Ranks: an iteration counts as long as its slowest rank", header, rows)


def _row(record: VariantRecord, rank: Rank) -> tuple[str, ...]:
    own = [r.ranks_ns[rank.rank] for r in record.used if rank.rank < len(r.ranks_ns)]
    error = rank.proof.error if rank.proof is not None else None
    return (
        record.name, str(rank.rank), str(rank.host), fmt.DASH if rank.device_index is None else str(rank.device_index),
        _clock(rank), fmt.ms(median(own) if own else None), fmt.DASH if error is None else f"{error:.1e}",
        rank.status if rank.status == "ok" else f"FAILED: {rank.reason}",
    )  # fmt: skip


def _clock(rank: Rank) -> str:
    """The offset of its host's clock, with its uncertainty where there are several hosts."""
    if rank.clock_offset_ns is None:
        return fmt.DASH
    doubt = f" ± {rank.clock_uncertainty_ns}" if rank.clock_uncertainty_ns else ""
    return f"{rank.clock_offset_ns}{doubt} ns"
