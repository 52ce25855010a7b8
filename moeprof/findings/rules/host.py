"""Rules about the host: waits, allocations, a slow first pass, launches, and work outside CUDA."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.intervals import EARLY
from moeprof.analysis.model import Finding
from moeprof.findings.host_time import LOADS, Chosen
from moeprof.findings.rules.common import SHARE, after_gap, call_names, example, finding, outside, unit_of
from moeprof.findings.steady_state import LEAST_PASSES, slow_first
from moeprof.findings.what_if import TINY_BYTES, Scene
from moeprof.trace.classify import BLOCKING

WARM_UP = "warm up before measuring and before serving; compile ahead of time; keep the cache of compiled kernels"
AN = {"H2D": "an", "H2H": "an"}
WAY = {"H2D": "from", "D2H": "to"}
LEAST_SMALL = 0.5  # of the waits: from here on small copies are what the host waits for
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
    gain = min(gain, host.spent_in(view.host.of(*BLOCKING)))  # without its waits the host is as much earlier, not more
    return finding(
        "sync-api", scene, gain,
        f"the host waits for the GPU ({', '.join(f'{n} x {c}' for n, c in names.items())}{_waited_for(scene, small)}) before it launches"
        " more: up to {ms}",
        "take the wait out of the loop: keep the value on the GPU, read it back later, copy asynchronously, order streams by events",
        calls=names, copies_waited_for=int(waited.sum()), example=after_gap(scene, scene.late),
    )  # fmt: skip


def _waited_for(scene: Scene, small: np.ndarray) -> str:
    """The small copies that the host waits for, in words; "" where most waits are for something else."""
    rows = scene.index[small]
    waits = int(sum(call_names(scene, scene.view.host.of(*BLOCKING)).values()))
    if not len(rows) or len(rows) < LEAST_SMALL * waits:
        return ""
    ops = scene.view.ops.iloc[rows]
    direction = ops["direction"].astype(str).mode().iloc[0]
    pageable = scene.view.pageable[rows].mean() > LEAST_SMALL
    place = example(scene, rows).get("range")
    count = "each" if len(rows) == waits else f"{len(rows)} of them"
    return (
        f", {count} for {AN.get(direction, 'a')} {direction} copy of {int(ops['bytes'].median())} bytes"
        f"{f' {WAY[direction]} pageable memory' if pageable and direction in WAY else ''}{f' in {place}' if place else ''}"
    )


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
        "allocator-in-loop", scene, min(gain, host.spent_in(chosen)),
        f"memory is allocated{' and freed' if any('Free' in n for n in names) else ''} in the loop"
        f" ({', '.join(f'{n} x {c}' for n, c in names.items())}): up to {{ms}}",
        "allocate once and reuse; leave torch's caching allocator its cache; cudaMallocAsync",
        calls=names, example=after_gap(scene, inside),
    )  # fmt: skip


def first_iteration(scene: Scene) -> Finding | None:
    """The first pass compiles, loads or tunes what the later ones reuse."""
    focus = scene.focus
    spans = focus.spans if focus.warm_up is None else (focus.warm_up, *focus.spans)
    if len(spans) < LEAST_PASSES:
        return _loaded_late(scene)
    slow = slow_first(spans)
    if slow is None:
        return None
    (first, usual), (start, end) = slow, spans[0]
    gain = min(first - usual, scene.view.busy.gaps(start, end).total_ns)
    if gain < SHARE * (scene.span + first * (focus.warm_up is not None)):
        return None
    calls = scene.view.calls
    inside = ((calls["start_ns"] >= start) & (calls["end_ns"] <= end)).to_numpy()
    slowest = (calls["end_ns"] - calls["start_ns"])[inside].groupby(calls["name"][inside].astype(str)).sum().nlargest(3)
    place = scene.view.overlapping(start, end)[:1]
    return outside(
        "first-iteration", scene, gain,
        f"the first pass takes {first / 1e6:.2f} ms, the others {usual / 1e6:.2f}: up to {{ms}} of it is compiling, loading or tuning",
        WARM_UP, f"the first pass before {focus.label}" if focus.warm_up else f"the first pass of {focus.label}",
        first_ns=first, usual_ns=usual, calls_ns={str(n): int(t) for n, t in slowest.items()}, example=example(scene, place),
    )  # fmt: skip


def _loaded_late(scene: Scene) -> Finding | None:
    """Without ranges: code is loaded inside a loop that was traced without the program's own set-up."""
    view, loads, opened_ns = scene.view, scene.view.host.named(LOADS), _scope(scene)
    if not scene.focus.repeats or not loads.any() or opened_ns is None:
        return None
    inside = _segments_with(scene, loads, from_the_beginning=True)
    begin, finish = scene.host.segments
    opened = np.where(begin[inside] <= scene.host.start, opened_ns, begin[inside])
    gain = sum(view.busy.gaps(int(a), int(b)).total_ns for a, b in zip(opened, finish[inside], strict=True) if b > a)
    if gain < SHARE * scene.span:
        return None
    return outside(
        "first-iteration", scene, gain,
        f"code is compiled or loaded inside the measured part ({int(loads.sum())} loads): up to {{ms}}",
        WARM_UP, scene.focus.label, loads=int(loads.sum()), example=example(scene, scene.index[inside]),
    )  # fmt: skip


def _scope(scene: Scene) -> int | None:
    """When the recording was opened by a cudaProfilerStart, after the program's own set-up; None where it was not.

    That a trace has no set-up call proves nothing: nsys before 2022 recorded no cuInit.
    """
    begun = scene.view.host.starts[scene.view.host.named("ProfilerStart")]
    return int(begun.min()) if len(begun) and begun.min() < scene.view.starts[0] else None


def launch_bound(scene: Scene) -> Finding | None:
    """Kernels end before the host has launched the next one."""
    kernels = scene.view.is_kernel[scene.index]
    waiting = kernels & scene.late & ~scene.view.in_graph[scene.index] & ~scene.host.loads_code
    lengths = (scene.view.ends - scene.view.starts)[scene.index][waiting]
    calls = (scene.view.call_ends - scene.view.call_starts)[scene.index][waiting]
    if not len(lengths):
        return None
    return finding(
        "launch-bound", scene, scene.launch_gain * (1 if scene.chain is None else 0.99),
        f"{len(lengths)} of {int(kernels.sum())} kernels wait for their launch: the GPU is idle until the host has launched them (median kernel "
        f"{np.median(lengths) / 1e3:.1f} us, median launch call {np.median(calls) / 1e3:.1f} us): up to {{ms}}",
        "capture the work in a CUDA graph, fuse kernels, or give each launch more work",
        share=SHARE_OF_LAUNCHING, kernels=len(lengths), kernel_ns_median=float(np.median(lengths)), launch_ns_median=float(np.median(calls)),
        example=after_gap(scene, waiting),
    )  # fmt: skip


def graph_opportunity(scene: Scene) -> Finding | None:
    """The same chain of kernels is launched one by one in each pass, slower than the GPU runs it."""
    chain = scene.chain
    if chain is None:
        return None
    length, kinds = chain
    return finding(
        "graph-opportunity", scene, scene.launch_gain,
        f"the same {length} launches ({kinds} kinds of kernels) are made again in each {unit_of(scene.focus.label)}, slower than the GPU runs them: up to {{ms}}",
        f"capture one {unit_of(scene.focus.label)} in a CUDA graph (torch.cuda.graph, torch.compile with mode='reduce-overhead') and replay it",
        share=SHARE_OF_LAUNCHING, launches_per_pass=length, kinds=kinds, example=after_gap(scene, scene.late),
    )  # fmt: skip


def host_bound(scene: Scene) -> Finding | None:
    """The device waits while the host is busy outside CUDA."""
    gain = scene.gain(scene.host.elsewhere())
    if (scene.gaps[scene.late] > 0).sum() < LEAST_PASSES:
        return None
    late = scene.index[scene.late]
    return finding(
        "host-bound", scene, gain,
        "the GPU waits for the host, which is outside CUDA (Python, data loading, the operating system): up to {ms}",
        "prepare the next step on another thread while the GPU works, or move this work out of the loop; a CPU profile names it",
        share=SHARE_OF_LAUNCHING, gaps=len(late), example=after_gap(scene, scene.late),
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
