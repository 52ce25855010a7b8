"""A trace cut into units of work that are not the worker's iterations: the instances of any range, or the whole trace."""

from __future__ import annotations

from moeprof.analysis.analyze import Cut, assembled, instances, tiled_cuts, whole
from moeprof.analysis.device import DeviceView, main_device
from moeprof.analysis.model import Analysis
from moeprof.trace import Trace

MAJORITY = (
    0.5  # of the launches from the first to the last instance that a range must contain for its instances to tile
)


def unit_windows(trace: Trace, prepared: tuple[DeviceView, ...], name: str | None) -> Analysis | None:
    """One window for each instance of range ``name`` on the device that has most of the work; None: one for the whole trace.

    Instances that contain most of the launches between them tile, as iterations do: the gaps between them are counted once. None
    where the trace has no work, or no such range with work.
    """
    view = main_device(prepared)
    if view is None or not len(view.ops):
        return None
    cuts = whole(view) if name is None else _of_range(trace, view, name)
    return assembled(trace, (view,), [(view, cut) for cut in cuts]) if cuts else None


def _of_range(trace: Trace, view: DeviceView, name: str) -> list[Cut]:
    cuts = sorted(instances(trace, view, name), key=lambda cut: cut.start)
    if len(cuts) < 2:
        return cuts
    inside = sum(len(view.starting(cut.start, cut.end)) for cut in cuts)
    between = len(view.starting(cuts[0].start, cuts[-1].end))
    return tiled_cuts(cuts) if inside >= MAJORITY * between else cuts
