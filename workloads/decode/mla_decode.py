"""Multi-head latent attention at decode: all heads read one latent cache, which is key and value at once.

  absorbed  the projections absorbed into q: batched matmul, softmax, batched matmul over the latents
  fused     one Triton pass: each block of latents is read once and used twice

q [B, H, 512 + 64], latents c [B, S, 512 + 64]; the first 512 columns are keys and values, the last 64 (rotary) keys alone. At 16
heads the latents' bytes decide, from some 90 heads on the FLOPs (DeepSeek-V2 and V3 have 128 heads).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import check, sequences
from moeprof.workloads.decode.faults import MLA_FAULTS
from moeprof.workloads.decode.mla import latents, scale, step


def build_absorbed(params: Params, device: str) -> Step:
    """Scores of all heads, softmax, weighted sum: three passes, sequences of one length together."""
    import torch

    operands = latents(params, device)
    q, _, lengths, out = operands
    parts = sequences.equal_lengths(lengths.tolist())

    def make(c: Any) -> Callable[[], None]:
        def run() -> None:
            for part, count in parts:
                rows = c[part, :count]
                scores = torch.bmm(q[part], rows.transpose(1, 2)) * scale(params)
                out[part] = torch.bmm(torch.softmax(scores, -1), rows[..., : params["latent_dim"]])

        return run

    return step(params, device, operands, make, slack=sequences.ROUNDED)


def build_fused(params: Params, device: str) -> Step:
    """One pass in Triton; on sm_90 in Gluon or CUDA C++ where that is faster."""
    from moeprof.workloads.decode.mla_split_kv import latent, latent_configs, latent_facts
    from moeprof.workloads.decode.split_kv import fastest_config

    operands = latents(params, device)
    q, c, lengths, out = operands
    key = ["mla", *q.shape, *c.shape, str(lengths.tolist()), params["dtype"]]
    config = fastest_config(
        key, latent_configs(q, out), lambda config: latent(config, q, c, lengths, out, scale(params))[0]
    )
    return step(
        params, device, operands, lambda c: captured(latent(config, q, c, lengths, out, scale(params))[0]), facts=lambda: latent_facts(config)
    )  # fmt: skip


DEEPSEEK: dict[str, Any] = {
    "batch": 128, "heads": 16, "length": 4096, "lengths": "", "latent_dim": 512, "rope_dim": 64, "key_dim": 128, "dtype": "bfloat16", "seed": 0,
}  # fmt: skip

WORKLOAD = Workload(
    name="mla_decode",
    summary="multi-head latent attention at decode: batched matmuls, one Triton pass",
    variants=(
        Variant("absorbed", "batched matmul, softmax, batched matmul over the latents", build_absorbed),
        Variant("fused", "one Triton pass: each block of latents is read once and used twice", build_fused, needs_cuda, ("triton",)),
    ),
    baseline="absorbed",
    optimized="fused",
    presets={
        "default": DEEPSEEK,
        "heads128": {**DEEPSEEK, "heads": 128},
        "ragged": {**DEEPSEEK, "lengths": "4641,45118,1730,1696"},
        "gb10": {**DEEPSEEK, "batch": 32},
        "tiny": {**DEEPSEEK, "batch": 3, "heads": 4, "length": 200, "latent_dim": 64, "rope_dim": 16, "key_dim": 32, "dtype": "float32"},
    },
    prove=check.prove_mla,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=MLA_FAULTS,
    ceilings=check.ceilings,
    shows="one latent cache serves all heads: few heads are bound by its bytes, many by FLOPs",
    counted=8,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
