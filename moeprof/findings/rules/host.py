"""Rules about the host: waits, allocations, a slow first pass, launches, and work outside CUDA."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.intervals import EARLY
from moeprof.analysis.model import Finding
from moeprof.findings.host_time import Chosen
from moeprof.findings.rules.common import call_names, example, finding
from moeprof.findings.steady_state import LEAST_PASSES
from moeprof.findings.what_if import TINY_BYTES, Scene
from moeprof.trace.classify import BLOCKING

LOADS = r"^cu(Module|Library|Link)(Load|Create|AddData|Complete)"
SETS_UP = r"^cuInit|^cuDevicePrimaryCtxRetain|^cuModuleGetLoadingMode"
SLOW_FIRST, LEAST_FIRST_NS = (
    1.5,
    2_000_000,
)  # times the median pass; a profiler's start alone slows a first pass by some 0.7 ms
SHARE_OF_LAUNCHING = 0.10  # of the judged time: below it the profiler's own cost per call decides


def sync_api(scene: Scene) -> Finding | None:
    """The device runs dry because the host waited when it should have launched more."""
    host, view = scene.host, scene.view
    names = call_names(scene, scene.view.host.of(*BLOCKING))
    if not names:
        return None
    waited = view.host_waited[scene.index] & ~scene.tiny
    small = waited & (view.ops["bytes"].to_numpy()[scene.index] < TINY_BYTES) & view.is_copy[scene.index]
    drained = _attributed(scene, (host.last_wait > EARLY) & ~scene.tiny)
    gain = max(scene.gain(host.in_waits(), np.where(small, scene.work, 0), waits=False), drained)
    copies = scene.exposed[view.host_waited[scene.exposed["op"].to_numpy(dtype=np.int64)]]
    large = view.ops["bytes"].to_numpy()[copies["op"].to_numpy(dtype=np.int64)] >= TINY_BYTES
    hidden = copies[copies["cause"].isin(["sync_between", "same_stream"]) & large]["exposed_ns"].sum()
    gain = min(gain, scene.idle_ns + int(scene.work[small].sum())) + min(int(hidden), scene.compute_ns)
    return finding(
        "sync-api", scene, gain,
        f"the host waits for the GPU ({', '.join(f'{n} x {c}' for n, c in names.items())}) before it launches more: up to {{ms}}",
        "take the wait out of the loop: keep the value on the GPU, read it back later, copy asynchronously, order streams by events",
        calls=names, copies_waited_for=int(waited.sum()), example=example(scene, scene.index[host.last_wait > EARLY]),
    )  # fmt: skip


def allocator_in_loop(scene: Scene) -> Finding | None:
    """cudaMalloc and cudaFree block the host, cudaFree until the device is idle."""
    host = scene.host
    chosen = scene.view.host.of("alloc")
    names = call_names(scene, chosen)
    if sum(names.values()) < LEAST_PASSES:
        return None
    inside = _segments_with(scene, chosen)
    gain = max(scene.gain(host.in_calls(chosen)), _attributed(scene, inside))
    return finding(
        "allocator-in-loop", scene, min(gain, scene.idle_ns),
        f"memory is allocated and freed in the loop ({', '.join(f'{n} x {c}' for n, c in names.items())}): up to {{ms}}",
        "allocate once and reuse; leave torch's caching allocator its cache; cudaMallocAsync",
        calls=names, example=example(scene, scene.index[inside]),
    )  # fmt: skip


def first_iteration(scene: Scene) -> Finding | None:
    """The first pass compiles, loads or tunes what the later ones reuse."""
    spans = scene.focus.spans
    if len(spans) < LEAST_PASSES:
        return _loaded_late(scene)
    starts, ends = (np.array([span[i] for span in spans]) for i in (0, 1))
    lengths = ends - np.maximum(starts, np.concatenate([starts[:1], np.maximum.accumulate(ends)[:-1]]))  # no queueing
    usual = int(np.median(lengths[1:]))
    start, end = spans[0]
    idle = scene.view.busy.gaps(start, end).total_ns
    excess = int(lengths[0]) - usual
    gain = min(excess, idle) if excess > max((SLOW_FIRST - 1) * usual, LEAST_FIRST_NS) else 0
    calls = scene.view.calls
    inside = ((calls["start_ns"] >= start) & (calls["end_ns"] <= end)).to_numpy()
    slow = (calls["end_ns"] - calls["start_ns"])[inside].groupby(calls["name"][inside].astype(str)).sum().nlargest(3)
    return finding(
        "first-iteration", scene, gain,
        f"the first pass takes {lengths[0] / 1e6:.2f} ms, the others {usual / 1e6:.2f}: {excess / 1e6:.2f} ms of compiling,"
        " loading or tuning",
        "warm up before measuring and before serving; compile ahead of time; keep the cache of compiled kernels",
        first_ns=int(lengths[0]), usual_ns=usual, calls_ns={str(n): int(t) for n, t in slow.items()},
    )  # fmt: skip


def _loaded_late(scene: Scene) -> Finding | None:
    """Without ranges: code is loaded inside a loop that was traced without the program's own set-up."""
    loads = scene.view.host.named(LOADS)
    if not scene.focus.repeats or not loads.any() or not _scoped(scene):
        return None
    inside = _segments_with(scene, loads, from_the_beginning=True)
    begin, finish = scene.host.segments
    first = int(scene.view.calls["start_ns"].min())
    starts = np.where(begin[inside] <= scene.host.start, first, begin[inside])
    gain = sum(
        scene.view.busy.gaps(int(a), int(b)).total_ns for a, b in zip(starts, finish[inside], strict=True) if b > a
    )
    return finding(
        "first-iteration", scene, gain,
        f"code is compiled or loaded inside the measured part ({int(loads.sum())} loads): {{ms}}",
        "warm up before measuring and before serving; compile ahead of time; keep the cache of compiled kernels",
        loads=int(loads.sum()), example=example(scene, scene.index[inside]),
    )  # fmt: skip


def _scoped(scene: Scene) -> bool:
    """Whether the recording began after the program's own set-up: at a cudaProfilerStart, or with no set-up call in it."""
    begun = scene.view.host.starts[scene.view.host.named("ProfilerStart")]
    return bool(begun.min() < scene.view.starts[0]) if len(begun) else not scene.view.host.named(SETS_UP).any()


def launch_bound(scene: Scene) -> Finding | None:
    """Kernels end before the host has launched the next one."""
    kernels = scene.view.is_kernel[scene.index]
    lengths = (scene.view.ends - scene.view.starts)[scene.index][kernels]
    calls = (scene.view.call_ends - scene.view.call_starts)[scene.index][kernels & (scene.host.call >= 0)]
    if not len(lengths) or not len(calls):
        return None
    return finding(
        "launch-bound", scene, scene.launch_gain * (1 if scene.chain is None else 0.99),
        f"{len(lengths)} kernels of {np.median(lengths) / 1e3:.1f} us wait for launches of {np.median(calls) / 1e3:.1f} us: up to {{ms}}",
        "capture the work in a CUDA graph, fuse kernels, or give each launch more work",
        share=SHARE_OF_LAUNCHING, kernels=len(lengths), kernel_ns_median=float(np.median(lengths)), launch_ns_median=float(np.median(calls)),
        example=example(scene, scene.index[kernels & scene.late]),
    )  # fmt: skip


def graph_opportunity(scene: Scene) -> Finding | None:
    """The same chain of kernels is launched one by one in each pass, slower than the GPU runs it."""
    chain = scene.chain
    if chain is None:
        return None
    length, kinds = chain
    return finding(
        "graph-opportunity", scene, scene.launch_gain,
        f"the same {length} launches ({kinds} kinds of kernels) are made again in each pass, slower than the GPU runs them: up to {{ms}}",
        "capture one pass in a CUDA graph (torch.cuda.graph, torch.compile with mode='reduce-overhead') and replay it",
        share=SHARE_OF_LAUNCHING, launches_per_pass=length, kinds=kinds, example=example(scene, scene.index[scene.late]),
    )  # fmt: skip


def host_bound(scene: Scene) -> Finding | None:
    """The device waits while the host is busy outside CUDA."""
    gain = min(scene.gain(scene.host.elsewhere()), scene.idle_ns)
    if (scene.gaps[scene.late] > 0).sum() < LEAST_PASSES:
        return None
    late = scene.index[scene.late]
    return finding(
        "host-bound", scene, gain,
        "the GPU waits for the host, which is outside CUDA (Python, data loading, the operating system): up to {ms}",
        "prepare the next step on another thread while the GPU works, or take the work off the loop; a CPU profile names it",
        share=SHARE_OF_LAUNCHING, gaps=len(late), example=example(scene, late),
    )  # fmt: skip


def _segments_with(scene: Scene, chosen: Chosen, from_the_beginning: bool = False) -> np.ndarray:
    """Operations in whose segments one of the chosen calls lies."""
    begin, finish = scene.host.segments
    starts, thread = scene.view.host.starts, scene.view.host.thread
    hit = np.zeros(len(scene.index), dtype=bool)
    for number in scene.host.calls:
        of_thread, times = scene.host.thread == number, starts[chosen & (thread == number)]
        low = (
            np.where(begin[of_thread] <= scene.host.start, EARLY, begin[of_thread])
            if from_the_beginning
            else begin[of_thread]
        )
        hit[of_thread] = np.searchsorted(times, finish[of_thread]) > np.searchsorted(times, low)
    return hit


def _attributed(scene: Scene, chosen: np.ndarray) -> int:
    """The gaps before the chosen operations that the host caused, without its long stays elsewhere and what is not usual."""
    late = chosen & scene.late
    elsewhere = np.zeros(len(late), dtype=np.int64)
    for thread in scene.host.calls:
        of_thread = late & (scene.host.thread == thread)
        stays = scene.host.stays[thread]
        elsewhere[of_thread] = stays.covered(scene.before[of_thread], scene.starts[of_thread])
    return int(np.maximum(scene.gaps - scene.once - elsewhere, 0)[late].sum())
