"""A rule about the time before the part that repeats: what makes a program slow to load."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.intervals import EMPTY, Union, both, union
from moeprof.analysis.model import Finding
from moeprof.findings.rules.common import example, outside
from moeprof.findings.what_if import Scene

SHARE_OF_LOADING = 0.2  # of the loading that one cause must take
LEAST_LOADING_NS = 500_000_000  # of that cause: a shorter one is not worth a reader's time
MODULES = r"^cu(da)?(Module|Library)(Load|GetModule|GetKernel|GetFunction)|^cuKernelGetFunction"
COMPILES = r"^cuLink(Create|Add|Complete)"
LINK_BEGINS, LINK_ENDS = r"^cuLinkCreate", r"^cuLinkComplete"


def slow_loading(scene: Scene) -> Finding | None:
    """The largest cause of a slow load: weights copied from pageable memory, code loaded lazily, or code compiled."""
    if not scene.focus.repeats or not len(scene.view.starts):
        return None
    start, end = _loading(scene)
    copies = np.flatnonzero(scene.view.pageable & (scene.view.direction == "H2D") & (scene.view.starts < end))
    modules = _called(scene, MODULES, start, end)
    compiles = both(_called(scene, COMPILES, start, end), _linked(scene).clip(start, end))
    causes = {
        "copies": union(scene.view.starts[copies], scene.view.ends[copies]).clip(start, end),
        "modules": modules,
        "compiles": compiles,
    }
    cause = max(causes, key=lambda name: causes[name].total_ns)
    gain = causes[cause].total_ns
    if gain < max(SHARE_OF_LOADING * (end - start), LEAST_LOADING_NS):
        return None
    moved = int(np.maximum(scene.view.ops["bytes"].to_numpy()[copies], 0).sum())
    claims = {
        "copies": f"{len(copies)} copies from pageable memory ({moved / 1e9:.2f} GB at {moved / max(gain, 1):.1f} GB/s)",
        "modules": "the loading of code (cuLibraryLoadData, cuModuleLoad)",
        "compiles": "the compilation of PTX (cuLink)",
    }
    return outside(
        "slow-loading", scene, gain,
        f"loading takes {(end - start) / 1e6:.2f} ms before {scene.focus.label}; {claims[cause]} is up to {{ms}} of it",
        REMEDIES[cause], "loading", loading_ns=end - start, bytes=moved if cause == "copies" else None,
        causes_ns={name: spent.total_ns for name, spent in causes.items()},
        example=example(scene, copies) if cause == "copies" else {},
    )  # fmt: skip


REMEDIES = {
    "copies": "read the weights into pinned memory, or map the file and copy in large pieces from a pinned buffer",
    "modules": "load only the kernels that are used (CUDA_MODULE_LOADING=LAZY), and warm up before serving",
    "compiles": "ship code for this GPU's architecture, so that the driver compiles no PTX; keep its cache (CUDA_CACHE_PATH)",
}


def _loading(scene: Scene) -> tuple[int, int]:
    """From the first record of the trace to the judged part, or to its slow first pass."""
    calls = scene.view.host.starts
    start = min([int(scene.view.starts[0]), *calls[:1].tolist()])
    end = scene.focus.start_ns if scene.focus.warm_up is None else scene.focus.warm_up[0]
    return start, max(end, start)


def _called(scene: Scene, pattern: str, start: int, end: int) -> Union:
    """When any thread was inside a call of such a name, from ``start`` to ``end``."""
    chosen = scene.view.host.named(pattern)
    if not chosen.any():
        return EMPTY
    return union(scene.view.host.starts[chosen], scene.view.host.ends[chosen]).clip(start, end)


def _linked(scene: Scene) -> Union:
    """When any thread was between a cuLinkCreate and its next cuLinkComplete: nsys does not record the cuLinkAddData that compiles."""
    host = scene.view.host
    begins, ends = host.named(LINK_BEGINS), host.named(LINK_ENDS)
    starts: list[int] = []
    finishes: list[int] = []
    for thread in np.unique(host.thread[begins]):
        of_thread = host.thread == thread
        opened, closed = host.starts[begins & of_thread], host.ends[ends & of_thread]
        last = np.searchsorted(opened, closed, side="right") - 1
        starts += opened[last[last >= 0]].tolist()
        finishes += closed[last >= 0].tolist()
    return union(np.array(starts, dtype=np.int64), np.array(finishes, dtype=np.int64)) if starts else EMPTY
