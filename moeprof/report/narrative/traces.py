"""Two traces in sentences: the time, where it went, waits that became tiny copies, and the kernels."""

from __future__ import annotations

from moeprof.compare.kernels import Kernel
from moeprof.compare.traces import DeviceComparison
from moeprof.units import ms, signed_ms

WORTH_NAMING = 0.02  # of a unit's time: a smaller change is not reported
NAMED = 3  # categories and kernels that are named
LONGEST = 60  # characters of a kernel's name


def sentences(device: DeviceComparison) -> tuple[str, ...]:
    """What changed on one device, the verdict first."""
    least = WORTH_NAMING * max(device.before_ns, 1)
    ratio = device.after_ns / device.before_ns if device.before_ns else 1.0
    told = [
        f"{device.unit}: {ms(device.before_ns)} in A, {ms(device.after_ns)} in B ({ratio:.2f} times the traced time)."
    ]
    steps = sorted(device.waterfall, key=lambda b: -abs(b.delta_ns))
    large = [b for b in steps if abs(b.delta_ns) >= least][:NAMED]
    if large:
        changes = (f"{b.label} {signed_ms(b.delta_ns)}" for b in large)
        told.append(f"Largest changes: {', '.join(changes)}.")
    told += _moved_waits(device)
    kernels = [k for k in device.kernels if k.status != "same" and abs(k.delta_ns) >= least][:NAMED]
    if kernels:
        told.append("Kernels: " + "; ".join(_kernel(k) for k in kernels) + ".")
    return tuple(told)


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
