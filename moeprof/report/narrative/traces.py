"""Two traces in sentences: the time, where it went, waits that became tiny copies, and the kernels."""

from __future__ import annotations

from moeprof.compare.kernels import Kernel
from moeprof.compare.traces import DeviceComparison
from moeprof.compare.units import SameWork
from moeprof.units import ms, signed_ms

WORTH_NAMING = 0.02  # of a unit's time: a smaller change is not reported
NAMED = 3  # categories and kernels that are named
LONGEST = 60  # characters of a kernel's name


MEDIAN_APART = 0.05  # of the ratio of means, from which the ratio of medians is reported too
NO_CLAIM = "The same work cannot be established, so neither trace is called faster or slower."
NAME_IT = "Name the unit: --unit NAME for a range or a kernel, --units A=N,B=N for how many each trace contains, or --whole if both traces are the same work."


def sentences(device: DeviceComparison) -> tuple[str, ...]:
    """What changed on one device, the verdict first; without a known unit why there is none, and what to do."""
    if device.unit is None:
        return (NO_CLAIM, _why_no_unit(device), NAME_IT)
    least = WORTH_NAMING * max(device.before_ns, 1)
    lines = _times(device)
    steps = sorted(device.waterfall, key=lambda b: -abs(b.delta_ns))
    large = [b for b in steps if abs(b.delta_ns) >= least][:NAMED]
    if large:
        changes = (f"{b.label} {signed_ms(b.delta_ns)}" for b in large)
        lines.append(f"Largest changes: {', '.join(changes)}.")
    lines += _moved_waits(device)
    kernels = [k for k in device.kernels if k.status != "same" and abs(k.delta_ns) >= least][:NAMED]
    if kernels:
        lines.append("Kernels: " + "; ".join(_kernel(k) for k in kernels) + ".")
    return tuple(lines)


def _times(device: DeviceComparison) -> list[str]:
    """The mean unit; before it the median one, where a few instances decide the mean."""
    before, after = device.typical_before_ns, device.typical_after_ns
    ratio = device.after_ns / device.before_ns if device.before_ns else 1.0
    if not before or not after or abs(ratio - after / before) < MEDIAN_APART * ratio:
        return [f"{device.unit}: {_against(device.before_ns, device.after_ns)}."]
    mean = f"{ms(device.before_ns)} in A, {ms(device.after_ns)} in B"
    return [
        f"{device.unit}: the median: {_against(before, after)}.",
        f"A few instances decide the mean: {mean}. The ledger and the kernels below are of the mean.",
    ]


def _against(before: float, after: float) -> str:
    """B takes 13 % longer than A: 12.54 ms to 14.18 ms."""
    change = round(100 * (after / before - 1)) if before else 0
    if not change:
        how = "B takes as long as A" if before == after else "B takes as long as A, within 0.5 %"
    else:
        how = f"B takes {abs(change)} % {'longer' if change > 0 else 'less time'} than A"
    return f"{how}: {ms(before)} to {ms(after)}, both traced"


def _why_no_unit(device: DeviceComparison) -> str:
    """What is missing: a common range, or agreement of the launched work."""
    name, evidence = device.candidate, device.evidence
    if name is None or evidence is None:
        return "No range repeats in both and contains most of their work."
    return f"{name} is in both, but {_disagreement(evidence)}."


def _disagreement(evidence: SameWork) -> str:
    if not evidence.shapes_known:
        return "its operations have no launch shapes that could show whether the work is equal"
    if evidence.repeated:
        return f"{evidence.scaled} kernels run {evidence.ratio:.3g} times as often per unit in B"
    if evidence.resized > evidence.alike:
        total = evidence.alike + evidence.resized
        return f"{evidence.resized} of {total} kernels that run equally often per unit have other launch shapes in B, as with another batch size"
    return f"only {evidence.alike} of {evidence.names} kernels run equally often per unit with the same launch shapes, as with another model"


def _kernel(kernel: Kernel) -> str:
    name = kernel.name if len(kernel.name) <= LONGEST else kernel.name[: LONGEST - 1] + "…"
    change = (
        f"{ms(kernel.before_ns)} to {ms(kernel.after_ns)}, {kernel.count_before:.1f} to {kernel.count_after:.1f} times"
    )
    return f"{name} {kernel.status}{f' by {kernel.other[:LONGEST]}' if kernel.other else ''} ({change})"


def _moved_waits(device: DeviceComparison) -> list[str]:
    """A wait that moved into a copy is not a wait that is gone."""
    moved = device.moved_waits
    if moved is None:
        return []
    change = moved.stalled_delta_ns
    outcome = (
        f"idle and exposed copy time rose by {ms(change)}: the waits moved into copies and are not gone"
        if change > 0
        else f"idle and exposed copy time fell by {ms(-change)}"
    )
    joined = "although the time fell" if device.after_ns < device.before_ns and change > 0 else "and"
    return [
        f"{moved.waits:,.0f} waits of the host became {moved.copies:,.0f} copies of {moved.bytes_per_copy:,.0f} bytes; {joined} {outcome}."
    ]
