"""What one step of a session changed against the step that it started from: the time category by category, and the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from moeprof.analysis.waterfall import Bar
from moeprof.compare import kernels as changes
from moeprof.compare import variants
from moeprof.compare.kernels import Kernel
from moeprof.kernels.roofline import Ceiling
from moeprof.loaded.capture import CapturedVariant, representative


@dataclass(frozen=True)
class StepDiff:
    """Step ``number`` against step ``against`` (0: the start): spans of the representative iterations, their difference,
    kernels of one iteration; or the ``reason`` why there is none."""

    number: int
    against: int
    before_ns: int = 0
    after_ns: int = 0
    waterfall: tuple[Bar, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What the captures of a session still show: differences of its steps, the ceilings of the newest, how many steps were left out."""

    diffs: tuple[StepDiff, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    left_out: int = 0


def compare(number: int, against: int, before: CapturedVariant | None, after: CapturedVariant | None) -> StepDiff:
    """The difference of two captures' variants."""
    one, other = representative(before), representative(after)
    if before is None or after is None or one is None or other is None:
        which = (
            "its own capture"
            if other is None
            else f"the capture of {'the start' if not against else f'step {against}'}"
        )
        return StepDiff(number, against, reason=f"{which} holds no trace of the variant")
    found = changes.kernels(_ops(before), _ops(after), (_units(before), _units(after)))
    return StepDiff(number, against, one.span_ns, other.span_ns, variants.waterfall(one, other), found)


def _ops(variant: CapturedVariant) -> pd.DataFrame:
    """Operations of the device that has most of them: the one whose iterations are analysed."""
    assert variant.main_device is not None
    return variant.main_device.ops


def _units(variant: CapturedVariant) -> float:
    assert variant.iterations is not None
    return float(len(variant.iterations.windows))
