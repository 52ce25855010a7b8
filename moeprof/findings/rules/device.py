"""Rules about how the GPU is filled: stream order, narrow kernels, and page migrations."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.device import one_of
from moeprof.analysis.intervals import union
from moeprof.analysis.model import Finding
from moeprof.findings.rules.common import example, finding
from moeprof.findings.rules.copies import MOST_EXPOSED, busy, copies_of, queued_behind
from moeprof.findings.what_if import Scene

NARROW = 0.25  # of the SMs: a kernel of so few blocks leaves most of the GPU empty
LONG_NS = 20_000  # a shorter kernel is a matter of launches
HALF, SHORT_NS = 0.5, 5_000  # for kernels of several streams, two of which would fit beside each other
NARROW_SHARE = 0.3  # of the judged time must be narrow kernels
SIDE_BY_SIDE = 1.2  # average number of narrow kernels at a time from which they count as concurrent
STALLED = 0.1  # of a kernel's time under which pages migrate: it is stalled, for it overlaps its own page faults
SHARE_OF_STREAM = 0.1  # of the narrow time from which a stream counts


def narrow(scene: Scene, widest: float = NARROW, shortest: int = LONG_NS) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the narrow kernels that run one after another, and their share of the SMs; empty where they do not matter."""
    view, device = scene.view, scene.device
    rows = scene.index[one_of(view.ops["kind"], ("kernel",))[scene.index]]  # communication needs few blocks by nature
    if device is None or not device.sm_count or not len(rows):
        return rows[:0], np.empty(0)
    grid = view.ops[["grid_x", "grid_y", "grid_z"]].to_numpy()[rows].astype(float)
    share = np.prod(np.maximum(grid, 1), axis=1) / device.sm_count
    lengths = view.ends[rows] - view.starts[rows]
    chosen = (share <= widest) & (lengths >= shortest) & (grid[:, 0] > 0)
    rows, share, lengths = rows[chosen], share[chosen], lengths[chosen]
    covered = union(view.starts[rows], view.ends[rows]).total_ns
    if covered < NARROW_SHARE * scene.span or lengths.sum() > SIDE_BY_SIDE * covered:
        return rows[:0], share[:0]
    return rows, share


def _per_stream(scene: Scene, rows: np.ndarray) -> np.ndarray:
    """Kernel time of each stream that has a part worth naming, in ns."""
    lengths = scene.view.ends[rows] - scene.view.starts[rows]
    sums = np.bincount(scene.view.queue[rows], weights=lengths) if len(rows) else np.empty(0)
    return sums[sums >= SHARE_OF_STREAM * sums.sum()] if len(sums) else sums


def legacy_default_stream(scene: Scene) -> Finding | None:
    """Streams made without cudaStreamNonBlocking wait for the legacy default stream, and it for them."""
    copies = scene.exposed[scene.exposed["cause"] == "legacy_default_stream"]
    exposed = min(int(copies["exposed_ns"].sum()), scene.compute_ns)
    rows, _ = narrow(scene, HALF, SHORT_NS)
    kinds = set(scene.view.stream_kind[scene.index])
    streams = _per_stream(scene, rows)
    ordered = streams.sum() - streams.max() if len(streams) > 1 and {"null", "blocking"} <= kinds else 0
    of_copies = copies["op"].to_numpy(dtype=np.int64)
    return finding(
        "legacy-default-stream", scene, max(exposed, ordered),
        "work in the legacy default stream and in blocking streams waits for each other and never runs side by side: up to {ms}",
        "create the streams with cudaStreamNonBlocking and order them by events, or compile with --default-stream per-thread",
        copies=len(copies), streams=len(streams), example=example(scene, of_copies if len(of_copies) else rows),
    )  # fmt: skip


def serialized_streams(scene: Scene) -> Finding | None:
    """Several streams whose work could share the GPU run strictly in turn."""
    rows, _ = narrow(scene, HALF, SHORT_NS)
    streams = _per_stream(scene, rows)
    legacy = {"null", "blocking"} <= set(scene.view.stream_kind[scene.index])
    gain = streams.sum() - streams.max() if len(streams) > 1 and not legacy else 0
    waiting = copies_of(scene, "dependency")
    waiting = waiting[~waiting["op"].isin(np.concatenate(queued_behind(scene)))]
    exposed = int(waiting["exposed_ns"].sum())
    of_copies = waiting["op"].to_numpy(dtype=np.int64)
    if exposed > MOST_EXPOSED * max(busy(scene, copies_of(scene)).total_ns, 1):
        gain = max(gain, min(exposed, scene.compute_ns))
    return finding(
        "serialized-streams", scene, gain,
        "streams run strictly in turn although their work could share the GPU: up to {ms}",
        "take out the events that chain them, or let each wait only for what it reads",
        streams=len(streams), copies_that_wait=len(waiting), example=example(scene, rows if len(rows) else of_copies),
    )  # fmt: skip


def low_concurrency(scene: Scene) -> Finding | None:
    """Kernels of few blocks run alone, one after another in one stream."""
    rows, share = narrow(scene)
    if len(_per_stream(scene, rows)) > 1:
        return None
    lengths = scene.view.ends[rows] - scene.view.starts[rows]
    return finding(
        "low-concurrency", scene, float((lengths * (1 - np.minimum(share, 1))).sum()),
        f"{len(rows)} kernels that fill {100 * np.median(share) if len(share) else 0:.0f} % of the SMs run one at a time: up to {{ms}}",
        "run independent ones in several streams or batch them; split the work over more blocks",
        kernels=len(rows), share_of_sms=float(np.median(share)) if len(share) else None, example=example(scene, rows),
    )  # fmt: skip


def migration_stall(scene: Scene) -> Finding | None:
    """Pages of managed memory migrate on demand: kernels that touch them stall, and the device waits between pages."""
    view, pages = scene.view, scene.view.owners[3]
    moved = scene.owned(pages)
    kind = (view.ops["kind"] == "migration").to_numpy()[scene.index]
    kernels = scene.index[view.is_kernel[scene.index]]
    lengths = view.ends[kernels] - view.starts[kernels]
    under = pages.covered(view.starts[kernels], view.ends[kernels])
    stalled = int(lengths[under > STALLED * lengths].sum())
    waiting = int((scene.gaps - scene.once)[kind].sum())
    return finding(
        "migration-stall", scene, min(moved + waiting + stalled, scene.span),
        f"{int(kind.sum())} migrations of managed memory take {moved / 1e6:.2f} ms, the GPU waits {waiting / 1e6:.2f} ms between them"
        f" and kernels stall under them ({stalled / 1e6:.2f} ms): up to {{ms}}",
        "copy explicitly from pinned memory, or prefetch (cudaMemPrefetchAsync) before the kernel",
        migrations=int(kind.sum()), stalled_kernels_ns=stalled, example=example(scene, scene.index[kind]),
    )  # fmt: skip
