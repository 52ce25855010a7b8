"""What the variants achieve against a roofline, and the figures of their own, as tables of text."""

from __future__ import annotations

from moeprof.compare.row import Row
from moeprof.compare.variants import Diff
from moeprof.report import format as fmt
from moeprof.report.tables import Table


def limit(diff: Diff) -> str:
    """The roofline, with its numbers, in words; empty for another model."""
    found = diff.roof
    if found is None:
        return ""
    how = "or" if found.pieces is None else f"overlapped in {found.pieces} pieces, the first and the last exposed, with"
    text = (
        f"Limit: {found.flops / 1e9:,.1f} useful GFLOP at {fmt.rate(found.tflop_per_s)} TFLOP/s ({found.flops_ceiling}) {how} {fmt.size(found.bytes_moved)} "
        f"at {found.gb_per_s:,.0f} GB/s ({found.bytes_ceiling}), both measured in this run, take at least {fmt.ms(found.ideal_ns)}: {found.bound} decide."
    )
    if found.yardstick_tflop_per_s is not None:
        text += f" Yardstick: {found.yardstick} {fmt.rate(found.yardstick_tflop_per_s)} TFLOP/s, a library on the bare work."
    return text


def tables(diff: Diff) -> tuple[Table, ...]:
    """``work`` and ``own``, where there is anything in them."""
    return tuple(table for table in (work(diff), own(diff)) if table.rows)


def work(diff: Diff) -> Table:
    """What each variant achieves, moves and launches; a column that is empty for all is left out."""
    rows = [r for r in diff.rows if r.work is not None or _figures(r)]
    header = (
        "variant", "TFLOP/s, useful", "GB/s, declared", "of the limit", "of the yardstick", "kernels an iteration", "declared bytes", "DRAM bytes by ncu",
    )  # fmt: skip
    found = [(row.name, *_achieved(row)) for row in rows]
    kept = [i for i in range(len(header)) if i == 0 or any(row[i] != fmt.DASH for row in found)]
    cut = tuple(tuple(row[i] for i in kept) for row in found)
    return Table("Work of one iteration", tuple(header[i] for i in kept), cut if len(kept) > 1 else ())


def own(diff: Diff) -> Table:
    """The figures that the steps give of themselves, a row a figure, a column a variant."""
    each = {row.name: found for row in diff.rows if (found := _figures(row))}
    names = dict.fromkeys(name for found in each.values() for name in found)
    rows = tuple((name, *(found.get(name, fmt.DASH) for found in each.values())) for name in names)
    return Table("Figures that the variants give", ("figure", *each), rows)


def _achieved(row: Row) -> tuple[str, ...]:
    found = row.work
    if found is None:
        return (fmt.DASH,) * 7
    moved = fmt.size(found.dram_bytes)
    if found.counted and found.dram_bytes is None:
        moved = f"{found.counted} of {found.kernels or fmt.DASH} kernels counted"
    return (
        fmt.rate(found.tflop_per_s), fmt.number(found.gb_per_s, 0), fmt.percent(row.limit_ratio), fmt.percent(found.yardstick_ratio),
        fmt.number(found.kernels), fmt.size(found.declared_bytes), moved,
    )  # fmt: skip


def _figures(row: Row) -> dict[str, str]:
    """The single figures and words of a variant."""
    found = {}
    for name, value in row.facts.items():
        if not isinstance(value, tuple):
            found[name] = (
                value if isinstance(value, str) else fmt.number(value, 0 if value == int(value) and value >= 10 else 2)
            )
    return found


def series(diff: Diff) -> dict[str, dict[str, tuple[float, ...]]]:
    """Lists of figures by name, then by the variants that give them."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for row in diff.rows:
        for name, value in row.facts.items():
            if isinstance(value, tuple):
                found.setdefault(name, {})[row.name] = value
    return found


def listed(name: str, found: dict[str, tuple[float, ...]]) -> Table:
    """A list of figures, a column a variant."""
    length = max(map(len, found.values()))
    rows = [(str(i), *(fmt.number(v[i], 0) if i < len(v) else fmt.DASH for v in found.values())) for i in range(length)]
    return Table(name, ("number", *found), tuple(rows))
