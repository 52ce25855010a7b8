"""Launch the latent-attention kernels: plain Triton, and on sm_90 those in Gluon and CUDA where their sizes fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton

from moeprof.workloads.decode import mla_cuda as native
from moeprof.workloads.decode.attention import LOG2E
from moeprof.workloads.decode.kernels import mla as kernels
from moeprof.workloads.decode.split_kv import FEW, Scratch, Way, combine, fitting, holders, share, ways, words

# block of latents, warps, stages, programs an SM, latents as the rows of the tensor cores' tile
PLAIN = ((64, 8, 2, 1, False), (32, 8, 3, 1, False), (32, 4, 2, 1, False))
WIDTHS = (512, 64)  # latent and rotary columns that the sm_90 kernel's shared memory is cut for
FEW_HEADS = (16, 32)  # that it takes as columns of the tensor cores' tile; more come in blocks of 64 rows


def latent_ways(q: Any, out: Any) -> list[Way]:
    """The ways worth timing for q [B, H, DV + DR], out [B, H, DV]."""
    batch, heads, width = out.shape
    fits = (width, q.shape[2] - width) == WIDTHS and q.element_size() == 2 and (heads in FEW_HEADS or heads % 64 == 0)
    if not fits or torch.cuda.get_device_capability(q.device) != (9, 0):
        return [{**way, "in": "Triton"} for way in ways(PLAIN)]
    few = heads in FEW_HEADS
    rows = [(64, warps, 2, 1, few) for warps in ((4, 8) if heads == FEW_HEADS[0] else (8,))]
    found = [{**way, "in": "Gluon"} for way in ways(rows)]
    if q.dtype == torch.bfloat16 and native.fits(batch, heads):
        found += [{**way, "in": "CUDA C++"} for way in ways(rows)]
    return found


def described(way: Way) -> dict[str, Any]:
    """A way as facts of a step."""
    return {"written in": way["in"], **words(way)}


def latent(way: Way, q: Any, c: Any, lengths: Any, out: Any, scale: float) -> tuple[Callable[[], object], Scratch]:
    """What launches one way: q [B, H, DV + DR], latents c [B, capacity, DV + DR], out [B, H, DV]."""
    return LAUNCHES[way["in"]](way, q, c, lengths, out, scale)


def _plain(way: Way, q: Any, c: Any, lengths: Any, out: Any, scale: float) -> tuple[Callable[[], object], Scratch]:
    batch, heads, full = q.shape
    width = out.shape[-1]
    group = min(64, heads)
    units = heads // group
    rows = max(16, triton.next_power_of_2(group))
    scratch = Scratch(share(fitting(way), batch * units, way["whole"]), batch * units, rows, width)
    shared = holders(scratch.programs, way["bn"], lengths.tolist(), units)
    inside = shared <= FEW

    def launch() -> object:
        kernels.mla[(scratch.programs,)](
            q, c, lengths, out, *scratch.tensors, scale * LOG2E, batch, c.shape[1], UNITS=units, G=group, GP=rows, DV=width, DR=full - width,
            BP=triton.next_power_of_2(batch), BN=way["bn"], launched=scratch.programs, INSIDE=inside,
            num_warps=way["warps"], num_stages=way["stages"],
        )  # fmt: skip
        return None if inside else combine(way, lengths, out, scratch, group, shared)

    return launch, scratch


def _beside(way: Way, lengths: Any, out: Any, group: int) -> tuple[Scratch, Callable[[], object]]:
    """Scratch of programs that stand side by side, one for each ``group`` heads, and what merges their parts of a sequence."""
    batch, heads, width = out.shape
    units = heads // group
    side = share(fitting(way) // units, batch, way["whole"])  # programs that one unit of each sequence gets
    scratch, shared = Scratch(side * units, batch * units, group, width), holders(side, way["bn"], lengths.tolist(), 1)

    def merge() -> object:
        return combine(way, lengths, out, scratch, group, shared, side=units, early=True) if shared > 1 else None

    return scratch, merge


def _hopper(way: Way, q: Any, c: Any, lengths: Any, out: Any, scale: float) -> tuple[Callable[[], object], Scratch]:
    from moeprof.workloads.decode.kernels import mla_hopper as gluon

    batch, heads, full = q.shape
    width = out.shape[-1]
    group = heads if way["swap"] else 64
    units = heads // group
    scratch, merge = _beside(way, lengths, out, group)
    tiles = [
        _tile(whole.view(-1, full), rows, columns)
        for whole, rows in ((q, group), (c, way["bn"]))
        for columns in (width, full - width)
    ]

    def launch() -> object:
        gluon.mla[(scratch.programs,)](
            *tiles, lengths, out, *scratch.tensors[:2], scale * LOG2E, batch, c.shape[1], UNITS=units, GP=group, DV=width, DR=full - width,
            BP=triton.next_power_of_2(batch), BN=way["bn"], SWAP=way["swap"], STAGES=way["stages"], launched=scratch.programs,
            num_warps=way["warps"],
        )  # fmt: skip
        return merge()

    return launch, scratch


def _native(way: Way, q: Any, c: Any, lengths: Any, out: Any, scale: float) -> tuple[Callable[[], object], Scratch]:
    scratch, merge = _beside(way, lengths, out, native.HEADS)
    run = native.operator()

    def launch() -> object:
        run(q, c, lengths, out, *scratch.tensors[:2], scale * LOG2E)
        return merge()

    return launch, scratch


LAUNCHES = {"Triton": _plain, "Gluon": _hopper, "CUDA C++": _native}


def _tile(tensor: torch.Tensor, rows: int, columns: int) -> Any:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor.from_tensor(tensor, [rows, columns], gl.NVMMASharedLayout(128, 16, 2))
