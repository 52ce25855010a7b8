"""How numbers and the names of kernels are written: each with its unit, the digits that matter, and a dash for what is absent.

Every output uses these functions, so that one number reads the same in the terminal, on a page, in Markdown and in a sentence.
"""

from __future__ import annotations

import re
from typing import Protocol

DASH = "–"
WRAPPERS = ("device_kernel", "Kernel", "Kernel2")  # CUTLASS's: their template argument says what runs


class Bounds(Protocol):
    """An interval."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def ms(ns: float | None) -> str:
    """Nanoseconds as milliseconds: 12.34 ms, 1.234 ms, 0.123 ms."""
    if ns is None:
        return DASH
    value = ns / 1e6
    return f"{value:.3f} ms" if abs(value) < 10 else f"{value:.2f} ms"


def us(ns: float | None) -> str:
    """Nanoseconds as microseconds, from a millisecond on as milliseconds: 4.61 µs."""
    if ns is None:
        return DASH
    return ms(ns) if abs(ns) >= 1e6 else f"{ns / 1e3:.2f} µs"


def signed_ms(ns: float) -> str:
    """A difference of nanoseconds: +0.50 ms, −14.00 ms."""
    return ("+" if ns > 0 else "−" if ns < 0 else "±") + ms(abs(ns))


def percent(ratio: float | None) -> str:
    """A ratio as a percentage: 97.3 %."""
    return DASH if ratio is None else f"{100 * ratio:.1f} %"


def times(ratio: float | None) -> str:
    """A ratio as a factor: 1.84×."""
    return DASH if ratio is None else f"{ratio:.2f}×"


def number(value: float | None, digits: int = 1) -> str:
    """A number with grouped thousands: 55.1; an integer without decimals."""
    if value is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def digits(value: float | None) -> str:
    """Four significant digits: 17.43."""
    return DASH if value is None else f"{value:.4g}"


def rate(value: float | None) -> str:
    """A throughput with three digits or one decimal: 0.0481, 3.21, 554.2."""
    if value is None:
        return DASH
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def size(count: float | None) -> str:
    """Bytes in the decimal unit that fits: 939.5 MB."""
    if count is None:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count:,.0f} B"


def amount(kind: str, value: float | None) -> str:
    """A hardware counter by its kind: a share in percent, bytes, bytes per second in GB/s, or a count."""
    if value is None:
        return DASH
    if kind == "share":
        return "≥ 100 %" if value > 1 else percent(value)  # ncu counts numerator and denominator in different passes
    if kind == "bytes":
        return size(value)
    return f"{value / 1e9:,.0f} GB/s" if kind == "bytes_per_s" else f"{value:,.0f}"


def between(interval: Bounds | None, scale: float = 1.0, digits: int = 3) -> str:
    """An interval times ``scale``: 17.61 to 17.83."""
    return DASH if interval is None else f"{interval.low * scale:.{digits}f} to {interval.high * scale:.{digits}f}"


def shape(sizes: tuple[int, ...]) -> str:
    """A grid or block without trailing ones: 2x66."""
    significant = [n for i, n in enumerate(sizes) if i == 0 or any(m != 1 for m in sizes[i:])]
    return "x".join(map(str, significant))


def short_kernel(name: str, limit: int = 48) -> str:
    """A demangled kernel name without return type, template arguments and parameters; of a wrapper what it wraps too.

    >>> short_kernel("void cutlass::device_kernel<enable_sm90<cutlass::gemm::kernel::GemmUniversal<int> > >(T1::Params)")
    'device_kernel (GemmUniversal)'
    """
    depth, outside = 0, []
    for char in name.replace("(anonymous namespace)", "").replace("<unnamed>", ""):
        depth += char in "<(["
        if depth == 0:
            outside.append(char)
        depth -= char in ">)]"
    short = "".join(outside).strip().rpartition(" ")[2].replace("::::", "::") or name
    tail = short.rpartition("::")[2] or short
    if tail in WRAPPERS:
        inner = (word.rpartition("::")[2] for word in re.findall(r"([\w:]+)<", name.partition("<")[2]))
        tail += next((f" ({word})" for word in inner if not word.startswith("enable_")), "")
    return tail if len(tail) <= limit else tail[: limit - 1] + "…"
