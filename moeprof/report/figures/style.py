"""Colours and shapes that all figures share: one colour a kind of time, safe for colour-blind readers (Okabe and Ito)."""

from __future__ import annotations

COLOURS = {
    "compute": "#0072B2",
    "communication": "#CC79A7",
    "copy": "#E69F00",
    "migration": "#8C5A2B",
    "memset": "#56B4E9",
    "graph": "#3B4CC0",
    "launch": "#5B5F66",
    "sync": "#7D828A",
    "host": "#9DA2AA",
    "dependency": "#BFC3C9",
    "edge": "#DCDFE3",
}
RANGE = "#8FBC9F"  # what the program itself named: no kind of time
FASTER, SLOWER, TOTAL = "#009E73", "#D55E00", "#5B5F66"
COMPUTE_SHADES = ("#0072B2", "#4FA3D1", "#004C78", "#7FBFE0", "#2E86AB", "#A9D5EC")
# one a variant
SHADES = (
    TOTAL, COLOURS["copy"], COLOURS["compute"], COLOURS["communication"], COLOURS["memset"], COLOURS["migration"],
    COLOURS["graph"],
)  # fmt: skip
# ledger category or idle cause -> colour, in the order of the ledger
LEDGER = (
    ("compute", "compute_ns", COLOURS["compute"]),
    ("exposed communication", "exposed_comm_ns", COLOURS["communication"]),
    ("exposed copy", "exposed_copy_ns", COLOURS["copy"]),
    ("exposed migration", "exposed_migration_ns", COLOURS["migration"]),
    ("exposed memset", "exposed_memset_ns", COLOURS["memset"]),
)
IDLE = tuple(
    (f"idle: {cause}", f"{cause}_ns", COLOURS[cause]) for cause in ("launch", "sync", "host", "dependency", "edge")
)
KINDS = {
    "kernel": COLOURS["compute"], "comm": COLOURS["communication"], "copy": COLOURS["copy"],
    "migration": COLOURS["migration"], "memset": COLOURS["memset"], "graph": COLOURS["graph"],
}  # fmt: skip
