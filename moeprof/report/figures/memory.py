"""Device memory over time as markup: an area of what is allocated, a line of what the allocator holds."""

from __future__ import annotations

from markupsafe import Markup

from moeprof import units
from moeprof.analysis.model import MemoryUse

WIDTH, HEIGHT = 1000, 140


def memory_figure(use: MemoryUse, zero_ns: int) -> Markup:
    """The figure; ``zero_ns``: what its axis counts from."""
    points = use.points
    first, last = points[0].time_ns, max(points[-1].time_ns, points[0].time_ns + 1)
    top = max(use.peak_bytes, use.peak_reserved_bytes or 0, 1)

    def x(time_ns: int) -> float:
        return WIDTH * (time_ns - first) / (last - first)

    def y(count: int) -> float:
        return HEIGHT - HEIGHT * count / top

    area = _steps([(x(p.time_ns), y(p.allocated_bytes)) for p in points])
    held = [(x(p.time_ns), y(p.reserved_bytes)) for p in points if p.reserved_bytes is not None]
    line = Markup('<path class="held" d="{}"/>').format(_steps(held)) if held else ""
    spoken = f"Memory in use over time: from {units.size(use.first_bytes)} to {units.size(use.last_bytes)}, at most {units.size(use.peak_bytes)}."
    return Markup(
        '<div class="memory" role="img" aria-label="{}"><p><span>{}</span></p>'
        '<svg viewBox="0 0 {w} {h}" preserveAspectRatio="none" aria-hidden="true"><path class="used" d="{} L{w} {h} L0 {h} Z"/>{}</svg>'
        "<p><span>{}</span><span>{}</span></p></div>"
    ).format(
        spoken, units.size(top), area, line, units.ms(first - zero_ns), units.ms(last - zero_ns), w=WIDTH, h=HEIGHT
    )  # fmt: skip


def _steps(points: list[tuple[float, float]]) -> str:
    """A path that keeps each height until the next point."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    parts += [f"H{x:.1f}V{y:.1f}" for x, y in points[1:]]
    return "".join(parts)
