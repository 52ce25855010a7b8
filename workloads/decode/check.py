"""The proofs of decode_attention, mla_decode and decode_kernel, and the ceilings that bound them."""

from __future__ import annotations

from math import isnan
from typing import Any

from moeprof.workload.model import Params, Proof, Step
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s
from moeprof.workloads.common.timing import synchronise
from moeprof.workloads.decode import attention, mla, sequences, stream

# relative Frobenius norm, whole and of a single head of a sequence; bf16 gives 2e-3 in one pass
TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
HEAD_FACTOR = 3
STREAM_TOLERANCE = 1e-5  # relative Frobenius norm, whole and of a single slice: sums in fp32
SLICE_FACTOR = 10


def prove_attention(params: Params, device: str, step: Step) -> Proof:
    """Every head of every sequence of decode_attention against the reference."""
    return compare(params, device, step, attention.reference(params, attention.cache(params, device)))


def prove_mla(params: Params, device: str, step: Step) -> Proof:
    """Every head of every sequence of mla_decode against the reference."""
    latents = mla.latents(params, device)
    return compare(params, device, step, mla.reference(params, latents, mla.scale(params)))


def compare(params: Params, device: str, step: Step, expected: Any) -> Proof:
    """Poison, run, compare every head of every sequence with ``expected`` [B, HQ, D]; run again, bit for bit."""
    import torch

    output, tolerance = _fresh(step, device), step.slack * TOLERANCES[params["dtype"]]
    off = (output.to(expected.dtype) - expected).norm(dim=-1)
    heads, error = off / expected.norm(dim=-1), float(off.norm() / expected.norm())
    wrong = (~(heads <= HEAD_FACTOR * tolerance)).nonzero()[:6].tolist()
    if not error <= tolerance or wrong:  # NaN never passes
        reason = f"the output differs from the reference by {error:.1e} of its size; wrong (sequence, head): {wrong}"
        return Proof(False, "", None if isnan(error) else error, tolerance, reason)
    again = _fresh(step, device)
    same = torch.equal(output, again)
    differ = float((again.to(expected.dtype) - expected).norm() / expected.norm())
    if not same and (step.repeatable or not differ <= tolerance):
        return Proof(False, "", error, tolerance, "two runs of the same input differ")
    twice = "twice the same" if same else "twice, not the same bits"
    return Proof(
        True,
        f"{heads.numel()} of {heads.numel()} heads, every element, {twice}, tails poisoned",
        error,
        tolerance,
    )


def prove_stream(params: Params, device: str, step: Step) -> Proof:
    """Poison, run, compare every slice; run again, bit for bit."""
    import torch

    expected = stream.reference(stream.tensors(params, device))

    output = _fresh(step, device)
    off = (output.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    error = float((output.double() - expected).norm() / expected.norm())
    wrong = (~(off <= SLICE_FACTOR * STREAM_TOLERANCE)).nonzero().flatten()[:8].tolist()
    if wrong or not error <= STREAM_TOLERANCE:  # NaN never passes
        shown = None if error != error else error  # noqa: PLR0124
        return Proof(
            False,
            "",
            shown,
            STREAM_TOLERANCE,
            f"the output differs from the reference by {error:.1e} of its size; wrong slices: {wrong}",
        )
    if not torch.equal(output, _fresh(step, device)):
        return Proof(False, "", error, STREAM_TOLERANCE, "two runs of the same input differ")
    return Proof(True, f"{len(output)} of {len(output)} slices, every element, twice the same", error, STREAM_TOLERANCE)


def _fresh(step: Step, device: str) -> Any:
    """The output of a run after everything was poisoned."""
    step.poison()
    step.run()
    synchronise(device)
    return step.output().clone()


def ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large GEMM, GB/s of reading."""
    return {
        "gemm_tflop_per_s": gemm_tflop_per_s(sequences.dtype(params), device),
        "read_gb_per_s": read_gb_per_s(device),
    }


def stream_ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large bf16 GEMM, GB/s of reading."""
    import torch

    return {"gemm_tflop_per_s": gemm_tflop_per_s(torch.bfloat16, device), "read_gb_per_s": read_gb_per_s(device)}
