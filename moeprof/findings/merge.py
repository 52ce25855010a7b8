"""Findings that share a cause become one: the cause, then what follows from it, then the same on other devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from moeprof.analysis.model import Finding
from moeprof.findings.host_time import HostTime
from moeprof.findings.rules.copies import copies_of
from moeprof.findings.what_if import Scene

# A finding is a consequence of another one if at most this share of its gain is left once the other one is gone, and if the
# other one gains at least this share of it by itself.
LEFT, LEADS = 0.5, 0.5


def _waits(scene: Scene) -> HostTime:
    return scene.host.in_waits()


def _allocations(scene: Scene) -> HostTime:
    return scene.host.in_calls(scene.view.host.of("alloc"))


def _pageable(scene: Scene) -> HostTime:
    launched = scene.view.call[copies_of(scene, "pageable")["op"].to_numpy(dtype=np.int64)]
    calls = np.zeros(len(scene.view.calls), dtype=bool)
    calls[launched[launched >= 0]] = True
    return scene.host.in_calls(calls)


def _launches(scene: Scene) -> HostTime:
    return scene.host.in_launches(scene.launched)


def _elsewhere(scene: Scene) -> HostTime:
    return scene.host.elsewhere()


# what the removal of a cause takes from the host: an empty launch queue has many cures, of which the first emptied it
CAUSES: dict[str, Callable[[Scene], HostTime]] = {
    "sync-api": _waits,
    "allocator-in-loop": _allocations,
    "pageable-copy": _pageable,
    "graph-opportunity": _launches,
}
CONSEQUENCES: dict[str, Callable[[Scene], HostTime]] = {
    "graph-opportunity": _launches,
    "launch-bound": _launches,
    "host-bound": _elsewhere,
}
SAME_TIME = {("graph-opportunity", "launch-bound")}  # two names for the same launches: the special one leads
WAITS_GO = ("sync-api", "pageable-copy")  # causes whose removal removes waits
NEEDS_DEVICE = "exposed-communication"  # may wait for another device
STARVED = (*CAUSES, *CONSEQUENCES, "first-iteration")  # findings that make a device late


def merged(scenes: Sequence[Scene], findings: Iterable[tuple[int, Finding]]) -> tuple[Finding, ...]:
    """The findings of all scenes, (number of the scene, finding) in their order: causes with their consequences, the largest first.

    Findings about time before the judged part (a first pass, loading) come last: they cost nothing per pass.
    """
    per_scene: dict[int, list[Finding]] = {}
    for number, finding in findings:
        per_scene.setdefault(number, []).append(finding)
    by_device = [f for number, of_scene in per_scene.items() for f in _under_causes(scenes[number], of_scene)]
    joined = _across_devices(_late_arrivals(by_device))
    return tuple(sorted(joined, key=lambda f: (f.gain_share is None, -_largest(f))))


def _largest(finding: Finding) -> int:
    return max(finding.gain_ns, *(f.gain_ns for f in finding.consequences), 0)


def _under_causes(scene: Scene, findings: list[Finding]) -> list[Finding]:
    """The findings of one device, each consequence under the first cause that explains it."""
    left = list(findings)
    causes = [f for f in findings if f.id in CAUSES]
    for cause in causes:
        if cause not in left:
            continue
        explained = [
            replace(f, left_ns=rest) for f in left if f is not cause and (rest := _left(scene, cause, f)) is not None
        ]
        ids = {f.id for f in explained}
        left = [replace(f, consequences=tuple(explained)) if f is cause else f for f in left if f.id not in ids]
    return left


def _left(scene: Scene, cause: Finding, finding: Finding) -> int | None:
    """What is left of a finding's gain once its cause is gone, in ns; None where it is no consequence."""
    if (cause.id, finding.id) in SAME_TIME:
        return 0
    if cause.id not in CAUSES or finding.id not in CONSEQUENCES or cause.id in CONSEQUENCES:
        return None
    if cause.gain_ns < LEADS * finding.gain_ns:
        return None
    waits = cause.id not in WAITS_GO
    without = CAUSES[cause.id](scene)
    starts, by_wait = (a + b for a, b in zip(without, CONSEQUENCES[finding.id](scene), strict=True))
    left = max(scene.gain((starts, by_wait), waits=waits) - scene.gain(without, waits=waits), 0)
    return min(left, finding.gain_ns) if left <= LEFT * finding.gain_ns else None


def _late_arrivals(findings: list[Finding]) -> list[Finding]:
    """Communication that mostly waits for another device stands under what makes that device late."""
    under: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.id != NEEDS_DEVICE:
            continue
        late = finding.evidence.get("waits_for_device")
        waited = finding.evidence.get("waits_for_other_devices_ns", 0)
        reasons = [f for f in findings if f.device == late and f.id in STARVED and f.gain_share is not None]
        if reasons and waited >= finding.gain_ns:
            under.setdefault(id(max(reasons, key=_largest)), []).append(
                replace(finding, left_ns=finding.gain_ns - waited)
            )
    taken = {(f.id, f.device) for hits in under.values() for f in hits}
    return [
        replace(f, consequences=(*f.consequences, *under.get(id(f), ())))
        for f in findings
        if f.id != NEEDS_DEVICE or (f.id, f.device) not in taken
    ]


def _across_devices(findings: list[Finding]) -> list[Finding]:
    """The same finding of several devices once: that of the largest gain, with the others behind it."""
    by_id: dict[str, list[Finding]] = {}
    for finding in findings:
        by_id.setdefault(finding.id, []).append(finding)
    joined = []
    for alike in by_id.values():
        first, *rest = sorted(alike, key=lambda f: -f.gain_ns)
        if any(f.device is None or f.device == first.device for f in rest):  # a user's rule may name no device
            joined += alike
        else:
            joined.append(replace(first, on_other_devices=tuple(rest)))
    return joined
