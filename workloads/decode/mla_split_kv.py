"""Launch the kernels of latent attention: in Triton, and on sm_90 in Gluon and CUDA if the sizes fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton

from moeprof.workloads.decode import mla_cuda
from moeprof.workloads.decode.kernels import mla as kernels
from moeprof.workloads.decode.sequences import LOG2E
from moeprof.workloads.decode.split_kv import (
    FEW,
    Config,
    Scratch,
    combine,
    config_facts,
    configs,
    max_programs_per_unit,
    program_count,
    resident_programs,
)

# block of latents, warps, stages, programs an SM, latents as the rows of the tensor cores' tile
PLAIN = ((64, 8, 2, 1, False), (32, 8, 3, 1, False), (32, 4, 2, 1, False))
WIDTHS = (512, 64)  # latent and rotary columns that the sm_90 kernel's shared memory is cut for
FEW_HEADS = (16, 32)  # that it takes as columns of the tensor cores' tile; more come in blocks of 64 rows


def latent_configs(q: Any, out: Any) -> list[Config]:
    """The configurations worth timing for q [B, H, DV + DR], out [B, H, DV]."""
    batch, heads, width = out.shape
    fits = (width, q.shape[2] - width) == WIDTHS and q.element_size() == 2 and (heads in FEW_HEADS or heads % 64 == 0)
    if not fits or torch.cuda.get_device_capability(q.device) != (9, 0):
        return [{**config, "in": "Triton"} for config in configs(PLAIN)]
    few = heads in FEW_HEADS
    rows = [(64, warps, 2, 1, few) for warps in ((4, 8) if heads == FEW_HEADS[0] else (8,))]
    candidates = [{**config, "in": "Gluon"} for config in configs(rows)]
    if q.dtype == torch.bfloat16 and mla_cuda.fits(batch, heads):
        candidates += [{**config, "in": "CUDA C++"} for config in configs(rows)]
    return candidates


def latent_facts(config: Config) -> dict[str, Any]:
    """A configuration as facts of a step."""
    return {"written in": config["in"], **config_facts(config)}


def latent(
    config: Config, q: Any, c: Any, lengths: Any, out: Any, scale: float
) -> tuple[Callable[[], object], Scratch]:
    """The launch of one configuration: q [B, H, DV + DR], latents c [B, capacity, DV + DR], out [B, H, DV]."""
    return LAUNCHES[config["in"]](config, q, c, lengths, out, scale)


def _triton(
    config: Config, q: Any, c: Any, lengths: Any, out: Any, scale: float
) -> tuple[Callable[[], object], Scratch]:
    batch, heads, full = q.shape
    width = out.shape[-1]
    group = min(64, heads)
    units = heads // group
    rows = max(16, triton.next_power_of_2(group))
    scratch = Scratch(
        program_count(resident_programs(config), batch * units, config["whole"]), batch * units, rows, width
    )
    shared = max_programs_per_unit(scratch.programs, config["bn"], lengths.tolist(), units)
    inside = shared <= FEW

    def launch() -> object:
        kernels.mla[(scratch.programs,)](
            q, c, lengths, out, *scratch.tensors, scale * LOG2E, batch, c.shape[1], UNITS=units, G=group, GP=rows, DV=width, DR=full - width,
            BP=triton.next_power_of_2(batch), BN=config["bn"], launched=scratch.programs, INSIDE=inside,
            num_warps=config["warps"], num_stages=config["stages"],
        )  # fmt: skip
        return None if inside else combine(config, lengths, out, scratch, group, shared)

    return launch, scratch


def _scratch_side_by_side(config: Config, lengths: Any, out: Any, group: int) -> tuple[Scratch, Callable[[], object]]:
    """The scratch of programs side by side, one for each ``group`` heads, and the launch that merges their parts."""
    batch, heads, width = out.shape
    units = heads // group
    side = program_count(
        resident_programs(config) // units, batch, config["whole"]
    )  # programs that one unit of each sequence gets
    scratch, shared = (
        Scratch(side * units, batch * units, group, width),
        max_programs_per_unit(side, config["bn"], lengths.tolist(), 1),
    )

    def merge() -> object:
        return combine(config, lengths, out, scratch, group, shared, side=units, early=True) if shared > 1 else None

    return scratch, merge


def _gluon(
    config: Config, q: Any, c: Any, lengths: Any, out: Any, scale: float
) -> tuple[Callable[[], object], Scratch]:
    from moeprof.workloads.decode.kernels import mla_hopper as gluon

    batch, heads, full = q.shape
    width = out.shape[-1]
    group = heads if config["swap"] else 64
    units = heads // group
    scratch, merge = _scratch_side_by_side(config, lengths, out, group)
    tiles = [
        _descriptor(whole.view(-1, full), rows, columns)
        for whole, rows in ((q, group), (c, config["bn"]))
        for columns in (width, full - width)
    ]

    def launch() -> object:
        gluon.mla[(scratch.programs,)](
            *tiles, lengths, out, *scratch.tensors[:2], scale * LOG2E, batch, c.shape[1], UNITS=units, GP=group, DV=width, DR=full - width,
            BP=triton.next_power_of_2(batch), BN=config["bn"], SWAP=config["swap"], STAGES=config["stages"], launched=scratch.programs,
            num_warps=config["warps"],
        )  # fmt: skip
        return merge()

    return launch, scratch


def _cuda(config: Config, q: Any, c: Any, lengths: Any, out: Any, scale: float) -> tuple[Callable[[], object], Scratch]:
    scratch, merge = _scratch_side_by_side(config, lengths, out, mla_cuda.HEADS)
    run = mla_cuda.operator()

    def launch() -> object:
        run(q, c, lengths, out, *scratch.tensors[:2], scale * LOG2E)
        return merge()

    return launch, scratch


LAUNCHES = {"Triton": _triton, "Gluon": _gluon, "CUDA C++": _cuda}


def _descriptor(tensor: torch.Tensor, rows: int, columns: int) -> Any:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor.from_tensor(tensor, [rows, columns], gl.NVMMASharedLayout(128, 16, 2))
