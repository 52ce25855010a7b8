"""Numbers as text: units said, digits that matter, a dash for what is absent."""

from __future__ import annotations

import re

from moeprof.report.narrative import sentences
from moeprof.stats.estimates import Interval

DASH = "–"


def ms(ns: float | None) -> str:
    """12.34 ms, 1.234 ms, 0.123 ms."""
    return DASH if ns is None else sentences.ms(ns)


def us(ns: float | None) -> str:
    """4.61 µs; from a millisecond on in ms."""
    if ns is None:
        return DASH
    return ms(ns) if abs(ns) >= 1e6 else f"{ns / 1e3:.2f} µs"


def percent(ratio: float | None) -> str:
    """97.3 %."""
    return DASH if ratio is None else sentences.percent(ratio)


def times(ratio: float | None) -> str:
    """1.84x."""
    return DASH if ratio is None else f"{ratio:.2f}×"


def number(value: float | None, digits: int = 1) -> str:
    """55.1; whole numbers with thin grouping."""
    if value is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """A throughput: 0.0481, 3.21, 554.2."""
    return DASH if value is None else sentences.rate(value)


def signed_ms(ns: float) -> str:
    """+0.50 ms, −14.00 ms."""
    return ("+" if ns > 0 else "−" if ns < 0 else "±") + ms(abs(ns))


def between(interval: Interval | None, scale: float = 1.0, digits: int = 3) -> str:
    """17.61 to 17.83."""
    return DASH if interval is None else f"{interval.low * scale:.{digits}f} to {interval.high * scale:.{digits}f}"


def size(count: float | None) -> str:
    """Bytes in the decimal unit that fits: 939.5 MB."""
    return DASH if count is None else sentences.size(count)


WRAPPERS = ("device_kernel", "Kernel", "Kernel2")  # CUTLASS's: their template argument says what runs


def short_kernel(name: str, limit: int = 48) -> str:
    """A demangled kernel name without return type, template arguments and parameters; of a wrapper what it wraps too.

    >>> short_kernel("void cutlass::device_kernel<enable_sm90<cutlass::gemm::kernel::GemmUniversal<int> > >(T1::Params)")
    'device_kernel (GemmUniversal)'
    """
    depth, kept = 0, []
    for char in name.replace("(anonymous namespace)", "").replace("<unnamed>", ""):
        depth += char in "<(["
        if depth == 0:
            kept.append(char)
        depth -= char in ">)]"
    short = "".join(kept).strip().rpartition(" ")[2].replace("::::", "::") or name
    tail = short.rpartition("::")[2] or short
    if tail in WRAPPERS:
        inner = (word.rpartition("::")[2] for word in re.findall(r"([\w:]+)<", name.partition("<")[2]))
        tail += next((f" ({word})" for word in inner if not word.startswith("enable_")), "")
    return tail if len(tail) <= limit else tail[: limit - 1] + "…"
