"""Colours that all figures share: one per kind of time, one per variant, each for light and for dark paper.

Work is cool and idle time is warm, as in timeline.css. Every colour has a contrast of at least 3:1 to the paper of its theme
(WCAG 1.4.11). Figures name the light one; page.js takes the dark one of the pair in the dark theme.
"""

from __future__ import annotations

from collections.abc import Sequence

PAPER = ("#ffffff", "#14171b")
# kind of time -> its colour on light and on dark paper
KINDS = {
    "compute": ("#1f78c8", "#5fa8ea"),
    "communication": ("#a03c96", "#d884cc"),
    "copy": ("#0c8a80", "#35b5a8"),
    "migration": ("#1d6b52", "#4aa886"),
    "memset": ("#6f8296", "#93a5b8"),
    "graph": ("#4a4fb8", "#8d90ee"),
    "host": ("#d8430b", "#ff7038"),
    "sync": ("#8f2400", "#d2502a"),
    "launch": ("#e07a1f", "#ffb066"),
    "dependency": ("#9a7b06", "#cdb860"),
    "edge": ("#948a84", "#7d7672"),
}
SIGNS = {"faster": ("#00785a", "#35c79b"), "slower": ("#b94a00", "#ff9357"), "total": ("#5b5f66", "#a3a9b2")}
# one per variant after the baseline, which has that of totals
VARIANTS = (
    ("#0b62a8", "#6bb6ea"), ("#b8541c", "#f0975c"), ("#7a3d9a", "#b583d6"), ("#2e7d32", "#7bc67e"), ("#b0205c", "#f283ae"),
    ("#876a10", "#d0b04a"), ("#007a85", "#2fa0a8"), ("#5d4037", "#dccabd"),
)  # fmt: skip
COLOURS = {name: light for name, (light, _) in KINDS.items()}
FASTER, SLOWER, TOTAL = (SIGNS[name][0] for name in ("faster", "slower", "total"))
INSIDE = PAPER[0]  # of texts in bars; dark ones in the dark theme
DARK = dict([*KINDS.values(), *SIGNS.values(), *VARIANTS, PAPER])  # light colour -> its dark one
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


def variant_colours(names: Sequence[str], baseline: str | None) -> dict[str, str]:
    """One colour a variant, the same on all figures of a page; the baseline has that of totals."""
    candidates = [name for name in names if name != baseline]
    colours = {name: VARIANTS[place % len(VARIANTS)][0] for place, name in enumerate(candidates)}
    return colours if baseline is None else {baseline: TOTAL} | colours
