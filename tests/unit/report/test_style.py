"""The colours of figures: visible on the paper of each theme, told apart, those of the timeline, one per variant."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from moeprof import resources
from moeprof.report.figures.style import DARK, KINDS, PAPER, SIGNS, TOTAL, VARIANTS, variant_colours

CAUSES = ("host", "sync", "launch", "dependency", "edge")
CSS = {  # kind -> the timeline's name of it, where these differ
    "communication": "comm", "copy": "h2d", "compute": "gemm",
}  # fmt: skip
LEAST_CONTRAST, LEAST_DISTANCE = 3.0, 0.08
NEUTRAL = 0.02  # chroma of a grey


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(a: str, b: str) -> float:
    """WCAG 2, section 1.4.3."""
    low, high = sorted(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def oklab(colour: str) -> tuple[float, float, float]:
    """Ottosson's OKLab, in which a distance of 0.02 is just seen."""
    r, g, b = linear(colour)
    long, middle, short = (
        (x * r + y * g + z * b) ** (1 / 3)
        for x, y, z in ((0.4122, 0.5363, 0.0514), (0.2119, 0.6807, 0.1074), (0.0883, 0.2817, 0.6300))
    )
    return (
        0.2105 * long + 0.7936 * middle - 0.0041 * short,
        1.9780 * long - 2.4286 * middle + 0.4506 * short,
        0.0259 * long + 0.7828 * middle - 0.8087 * short,
    )


@pytest.mark.parametrize("theme", [0, 1])
def test_every_colour_has_a_contrast_of_three_to_its_paper(theme: int) -> None:
    for pair in (*KINDS.values(), *SIGNS.values(), *VARIANTS):
        assert contrast(pair[theme], PAPER[theme]) >= LEAST_CONTRAST, pair
    assert len(DARK) == len(KINDS) + len(SIGNS) + len(VARIANTS) + 1, "each light colour has one dark one"


@pytest.mark.parametrize("theme", [0, 1])
def test_causes_of_idle_time_are_warm_and_told_apart(theme: int) -> None:
    for cause in CAUSES:
        _, a, b = oklab(KINDS[cause][theme])
        assert math.hypot(a, b) < NEUTRAL or (b > 0 and abs(math.atan2(a, b)) < math.pi / 2), cause
    for a, b in itertools.combinations(CAUSES, 2):
        assert math.dist(oklab(KINDS[a][theme]), oklab(KINDS[b][theme])) >= LEAST_DISTANCE, (a, b)
    colours = [SIGNS["total"], *VARIANTS]
    for first, second in itertools.combinations(colours, 2):
        assert math.dist(oklab(first[theme]), oklab(second[theme])) >= LEAST_DISTANCE, (first, second)


def test_the_timeline_has_the_same_colours() -> None:
    text = (resources.folder("reports") / "templates" / "timeline.css").read_text(encoding="utf-8")
    light, dark = text.split(':root[data-theme="dark"] .timeline', 1)
    for name, pair in KINDS.items():
        for part, colour in zip((light, dark), pair, strict=True):
            match = re.search(rf"--tl-{CSS.get(name, name)}: (#\w+)", part)
            assert match is not None and match[1] == colour, name


def test_a_variant_has_one_colour_and_the_baseline_that_of_totals() -> None:
    colours = variant_colours(["b", "a", "c"], "a")
    assert colours["a"] == TOTAL and len(set(colours.values())) == 3
    assert variant_colours(["a", "b", "c"], "a") == colours, "the order of the baseline does not matter"
    assert len(set(variant_colours([str(n) for n in range(9)], "0").values())) == 9
