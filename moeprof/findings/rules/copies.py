"""Rules about copies: pageable, tiny, in the wrong stream, too late, behind one another, and too many bytes for the link."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.intervals import Union, both, intersection, minus, union
from moeprof.analysis.model import Finding
from moeprof.analysis.overlap import ENGINE_TURNAROUND_NS
from moeprof.findings.rules.common import example, finding
from moeprof.findings.what_if import TINY_BYTES, Scene

MOST_EXPOSED = 0.5  # of the copies' time must be exposed, or the first copies of a healthy pipeline would count
LEAST_TINY = 20  # copies


def copies_of(scene: Scene, *causes: str, tiny: bool = False) -> pd.DataFrame:
    """Exposed copies of some causes (all, where none is given), tiny or not."""
    rows = scene.exposed
    size = scene.view.ops["bytes"].to_numpy()[rows["op"].to_numpy(dtype=np.int64)]
    chosen = ((size >= 0) & (size < TINY_BYTES)) == tiny
    return rows[chosen & (rows["cause"].isin(causes) if causes else True)]


def _rows(copies: pd.DataFrame) -> np.ndarray:
    return copies["op"].to_numpy(dtype=np.int64)


def busy(scene: Scene, copies: pd.DataFrame) -> Union:
    rows = _rows(copies)
    return union(scene.view.starts[rows], scene.view.ends[rows])


def pageable_copy(scene: Scene) -> Finding | None:
    """Copies from or to pageable memory are staged by the driver, run slowly and block the host."""
    copies = copies_of(scene, "pageable")
    if not len(copies):
        return None
    calls = np.zeros(len(scene.view.calls), dtype=bool)
    launched = scene.view.call[_rows(copies)]
    calls[launched[launched >= 0]] = True
    exposed = int(copies["exposed_ns"].sum())
    gain = exposed + min(scene.gain(scene.host.in_calls(calls), waits=False), scene.idle_ns)
    inside = union(scene.view.host.starts[calls], scene.view.host.ends[calls])
    gain = min(
        gain, scene.owned(minus(both(inside, busy(scene, copies)), scene.view.working))
    )  # a copy runs in its call
    return finding(
        "pageable-copy", scene, gain,
        f"{len(copies)} copies use pageable host memory: staged by the driver, they cost up to {{ms}} with no kernel beside them",
        "pin the host buffer (pin_memory=True, cudaHostAlloc) and copy asynchronously in a stream of its own",
        copies=len(copies), exposed_ns=exposed, example=example(scene, _rows(copies)),
    )  # fmt: skip


def tiny_copies(scene: Scene) -> Finding | None:
    """Many small copies cost their launches and their set-up, not their bytes."""
    tiny, size = scene.tiny, scene.view.ops["bytes"].to_numpy()[scene.index]
    if tiny.sum() < LEAST_TINY:
        return None
    exposed = scene.work - scene.view.working.covered(scene.starts, scene.starts + scene.work)
    waits = not scene.view.host_waited[scene.index][tiny].any()  # packed into one copy, they are waited for once
    gain = scene.gain(scene.host.in_launches(tiny), np.where(tiny, np.minimum(exposed, scene.work), 0), waits)
    return finding(
        "tiny-copies", scene, gain,
        f"{int(tiny.sum())} copies of {int(np.median(size[tiny]))} bytes (median) cost up to {{ms}} in launches and set-up",
        "pack them into one buffer and copy once, or write the values from a kernel",
        copies=int(tiny.sum()), median_bytes=int(np.median(size[tiny])), example=example(scene, scene.index[tiny]),
    )  # fmt: skip


def same_stream_copy(scene: Scene) -> Finding | None:
    """A copy in the stream of the kernels cannot run beside them."""
    copies = copies_of(scene, "same_stream")
    copies = copies[~scene.view.host_waited[_rows(copies)]]  # those the host waits for are sync-api's
    exposed = int(copies["exposed_ns"].sum())
    return finding(
        "same-stream-copy", scene, min(exposed, scene.compute_ns),
        f"{len(copies)} copies run in the stream of the kernels, so that nothing runs beside them: up to {{ms}}",
        "copy in a stream of its own, ordered by events, with a second buffer",
        copies=len(copies), exposed_ns=exposed, compute_ns=scene.compute_ns, example=example(scene, _rows(copies)),
    )  # fmt: skip


def late_issue(scene: Scene) -> Finding | None:
    """Copies that were issued only when the compute they could have hidden under had ended."""
    copies = copies_of(scene, "issued_late")
    others = copies_of(scene)
    exposed = int(copies["exposed_ns"].sum())
    if exposed < MOST_EXPOSED * busy(scene, others).total_ns:
        return None
    return finding(
        "late-issue", scene, min(exposed, scene.compute_ns),
        f"{len(copies)} copies were issued after the compute before them had ended: up to {{ms}} could have been hidden",
        "issue the copy for the next step before this step's kernels",
        copies=len(copies), exposed_ns=exposed, example=example(scene, _rows(copies)),
    )  # fmt: skip


def queued_behind(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of copies (rows of the view): one, and a smaller one of another stream and the same direction that was
    submitted before it ended and begins right after it."""
    view, size = scene.view, scene.view.ops["bytes"].to_numpy()
    pairs = [np.empty((2, 0), dtype=np.int64)]
    exposed = _rows(scene.exposed)
    for direction in scene.exposed["direction"].unique():
        alike = np.flatnonzero(view.is_copy & (view.direction == direction))
        alike = alike[np.isin(alike, exposed)]
        ahead, behind = alike[:-1], alike[1:]
        waits = (view.queue[ahead] != view.queue[behind]) & (
            view.ends[ahead] + ENGINE_TURNAROUND_NS >= view.starts[behind]
        )
        waits &= (view.call_ends[behind] < view.ends[ahead]) & (size[behind] < size[ahead])
        pairs.append(np.stack([ahead[waits], behind[waits]]))
    ahead, behind = np.concatenate(pairs, axis=1)
    return ahead, behind


def copy_engine_contention(scene: Scene) -> Finding | None:
    """A copy that work waits for is queued behind another stream's copy of the same direction."""
    view = scene.view
    ahead, waiting = queued_behind(scene)
    blocked = minus(intersection(union(view.starts[ahead], view.ends[ahead]), scene.focus.pieces), view.working)
    return finding(
        "copy-engine-contention", scene, min(blocked.total_ns, scene.compute_ns),
        f"{len(waiting)} copies stand behind larger ones of another stream in the same direction: up to {{ms}} with no kernel beside",
        "send first what is needed first: one stream in order of need, or the large copy after it and in pieces",
        copies=len(waiting), ahead=example(scene, ahead), waiting=example(scene, waiting),
    )  # fmt: skip


def link_bound(scene: Scene) -> Finding | None:
    """More bytes than can hide: in one direction the copies take longer than all compute."""
    rows = copies_of(scene)
    rows = rows[(rows["memory"] != "pageable") & rows["direction"].isin(["H2D", "D2H", "P2P"])]
    best, gain = "", 0
    for direction, copies in rows.groupby("direction"):
        beyond = min(int(copies["exposed_ns"].sum()), scene.owned(busy(scene, copies)) - scene.compute_ns)
        best, gain = (str(direction), beyond) if beyond > gain else (best, gain)
    copies = rows[rows["direction"] == best]
    kept_busy, moved = scene.owned(busy(scene, copies)), int(scene.view.ops["bytes"].to_numpy()[_rows(copies)].sum())
    return finding(
        "link-bound", scene, gain,
        f"{best} copies keep the link busy {kept_busy / 1e6:.2f} ms for {scene.compute_ns / 1e6:.2f} ms of compute: {{ms}} cannot hide",
        "move fewer bytes (a smaller dtype, a cache on the GPU, recompute), or give each byte more compute",
        direction=best, busy_ns=kept_busy, compute_ns=scene.compute_ns, gb_per_s=moved / max(kept_busy, 1),
        example=example(scene, _rows(copies)),
    )  # fmt: skip
