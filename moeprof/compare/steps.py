"""What one step of a session changed against the step that it started from: the time category by category, and the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from moeprof.analysis.waterfall import Bar
from moeprof.compare import kernels, variants
from moeprof.compare.kernels import Kernel
from moeprof.kernels.roofline import Ceiling
from moeprof.loaded.capture import CapturedVariant, representative


@dataclass(frozen=True)
class Missing:
    """What a step cannot be compared without: the ``capture`` or the ``trace`` of the side ``before`` or ``after``."""

    side: Literal["before", "after"]
    what: Literal["capture", "trace"]


@dataclass(frozen=True)
class StepComparison:
    """Step ``number`` against step ``against`` (0: the start): spans of the representative iterations, the waterfall between
    them, kernels per iteration; or what is ``missing``."""

    number: int
    against: int
    before_ns: int = 0
    after_ns: int = 0
    waterfall: tuple[Bar, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    missing: Missing | None = None


@dataclass(frozen=True)
class SessionComparison:
    """What the captures of a session show: its last steps compared, the ceilings of the newest capture, and how many steps
    were left out."""

    steps: tuple[StepComparison, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    left_out: int = 0


def compare(number: int, against: int, before: CapturedVariant | None, after: CapturedVariant | None) -> StepComparison:
    """One variant in the captures of two steps."""
    window, other = representative(before), representative(after)
    if after is None or other is None:
        return StepComparison(number, against, missing=Missing("after", "trace"))
    if before is None or window is None:
        return StepComparison(number, against, missing=Missing("before", "trace"))
    changed = kernels.kernels(_ops(before), _ops(after), (_units(before), _units(after)))
    return StepComparison(number, against, window.span_ns, other.span_ns, variants.waterfall(window, other), changed)


def _ops(variant: CapturedVariant) -> pd.DataFrame:
    """Operations of the device that has most of them: the one whose iterations are analysed."""
    assert variant.main_device is not None
    return variant.main_device.ops


def _units(variant: CapturedVariant) -> float:
    assert variant.iterations is not None
    return float(len(variant.iterations.windows))
