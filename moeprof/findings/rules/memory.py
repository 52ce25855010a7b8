"""A rule about kernels that only move memory: a gather, a concatenation, a transpose, a copy by a kernel."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from moeprof.analysis.device import COMPUTE, one_of
from moeprof.analysis.intervals import Union, both, minus, union
from moeprof.analysis.kernel_families import COPY_LIKE, family_of
from moeprof.analysis.model import Finding
from moeprof.findings.rules import device
from moeprof.findings.rules.common import example, finding, unit_of
from moeprof.findings.what_if import Scene
from moeprof.units import percent, short_kernel

LEAST_SHARE = 0.10  # of the judged time that copy-like kernels of one name must hold alone
REACHABLE = 0.5  # of that time: where the model gains less without these kernels, the launches decide
NAMED = 0.5  # of the launches of a kernel that the same kernel must follow to be named

# kind, pattern of the kernel's name, what to try: the first that matches
KINDS = (
    ("concatenation", r"CatArray|fused_(\w+_)?cat_", "allocate the whole output once (a static KV cache) and write each part in place"),
    (
        "gather", r"gather|(?<!_)index(?!_(put|copy))|fused_(\w+_)?index(?!_(put|copy))|embedding|expandInputRows",
        "read the rows where they lie: index inside the kernel that uses them; for expert weights use a grouped GEMM that takes"
        " the experts' offsets instead of gathered weights",
    ),
    ("scatter", r"scatter|index_put|index_copy|reshape_and_cache", "let the kernel that computes the rows write them to their place"),
    ("transpose", r"transpose|permute|nchw", "choose one layout: store the tensor as its reader needs it, or pass strides to the GEMM"),
    ("copy", r"", "remove the copy: no .contiguous(), .clone() or cast in the loop; store the tensor in the layout and dtype of its reader"),
)  # fmt: skip


def copy_like_kernels(scene: Scene) -> Finding | None:
    """Kernels that only move memory run while nothing computes, one of them for a large share of the time."""
    view = scene.view
    rows = scene.index[_copy_like(scene)]
    exposed = _alone(scene, rows)
    if exposed.total_ns < LEAST_SHARE * scene.span:
        return None
    rows = rows[~_explained(scene, rows)]
    exposed = _alone(scene, rows)
    if not len(rows):
        return None
    name, of_name = _largest(scene, rows)
    if _alone(scene, of_name).total_ns < LEAST_SHARE * scene.span:  # many small ones have no single cure
        return None
    lengths = view.ends[of_name] - view.starts[of_name]
    kind, remedy = kind_of(name)
    after, count_after = _after(scene, of_name)
    launches = len(of_name) / max(scene.passes, 1)
    per_pass = f" per {unit_of(scene.focus.label)}" if scene.passes > 1 else ""
    share = lengths.sum() / max(scene.judged.span_ns, 1)
    without = scene.gain(device=np.where(np.isin(scene.index, rows), scene.work, 0))
    evidence: dict[str, Any] = {
        "kernel": name, "kind": kind, "launches": len(of_name), "kernel_ns_median": float(np.median(lengths)),
        "kernel_share": float(share), "kernel_ns": int(lengths.sum()), "copy_like_launches": len(rows), "exposed_ns": exposed.total_ns,
        "gain_at_these_launches_ns": without, "before": after, "example": example(scene, of_name),
    }  # fmt: skip
    follows = f", {count_after} of {len(of_name)} of them before {short_kernel(after)}" if after else ""
    late = "; while the host launches this slowly, most of it stays" if without < REACHABLE * exposed.total_ns else ""
    return finding(
        "copy-like-kernels", scene, exposed.total_ns,
        f"{len(rows)} kernels only move memory: up to {{ms}}; {percent(share)} of the time is {short_kernel(name)} ({kind}, "
        f"{launches:.4g} launches{per_pass}, median {np.median(lengths) / 1e3:.1f} us{follows}){late}",
        remedy, share=LEAST_SHARE, **evidence,
    )  # fmt: skip


def kind_of(name: str) -> tuple[str, str]:
    """What kind of copy a kernel of this name makes, and what to try."""
    return next((kind, remedy) for kind, pattern, remedy in KINDS if re.search(pattern, name, re.IGNORECASE))


def _copy_like(scene: Scene) -> np.ndarray:
    """A mask: the copy-like kernels of the focus."""
    view = scene.view
    names = view.ops["name"].cat
    of_name = np.array([*(family_of(str(name)) == COPY_LIKE for name in names.categories), False], dtype=bool)
    return (of_name[names.codes.to_numpy()] & one_of(view.ops["kind"], ("kernel",)))[scene.index]


def _alone(scene: Scene, rows: np.ndarray) -> Union:
    """When the kernels ``rows`` run, no other compute runs and nothing communicates, inside the focus."""
    view = scene.view
    others = one_of(view.ops["kind"], COMPUTE)
    others[rows] = False
    hiding = both(view.union_of(others), view.owners[1])
    return minus(union(view.starts[rows], view.ends[rows]), hiding).clip(scene.focus.start_ns, scene.focus.end_ns)


def _explained(scene: Scene, rows: np.ndarray) -> np.ndarray:
    """A mask over ``rows``: the kernels whose time a rule about an empty or stalled GPU names already."""
    view = scene.view
    explained = np.zeros(len(rows), dtype=bool)
    if device.low_concurrency(scene) is not None:
        explained |= np.isin(rows, device.narrow(scene)[0])
    if device.legacy_default_stream(scene) is not None or device.serialized_streams(scene) is not None:
        explained |= np.isin(rows, device.narrow(scene, device.HALF, device.SHORT_NS)[0])
    if device.migration_stall(scene) is not None:
        starts, ends = view.starts[rows], view.ends[rows]
        explained |= view.owners[3].covered(starts, ends) > device.STALLED * (ends - starts)
    return explained


def _largest(scene: Scene, rows: np.ndarray) -> tuple[str, np.ndarray]:
    """The name that holds most time of ``rows``, and its rows."""
    names = scene.view.ops["name"].cat
    codes = names.codes.to_numpy()[rows]
    spent = np.bincount(codes, weights=scene.view.ends[rows] - scene.view.starts[rows])
    code = int(spent.argmax())
    return str(names.categories[code]), rows[codes == code]


def _after(scene: Scene, rows: np.ndarray) -> tuple[str, int]:
    """The kernel that comes next in the stream of most of ``rows``, and after how many; ("", 0) where no kernel does."""
    view = scene.view
    kernels = np.flatnonzero(view.is_kernel)
    order = kernels[np.lexsort((view.starts[kernels], view.queue[kernels]))]
    place = np.empty(len(view.starts), dtype=np.int64)
    place[order] = np.arange(len(order))
    following = order[np.minimum(place[rows] + 1, len(order) - 1)]
    same = (view.queue[following] == view.queue[rows]) & (following != rows)
    names = view.ops["name"].cat
    count = np.bincount(names.codes.to_numpy()[following[same]], minlength=len(names.categories))
    code = int(count.argmax()) if len(count) else 0
    return (
        (str(names.categories[code]), int(count[code])) if len(count) and count[code] >= NAMED * len(rows) else ("", 0)
    )
