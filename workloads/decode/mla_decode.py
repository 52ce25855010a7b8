"""Multi-head latent attention at decode: all heads read one latent cache, which is key and value at once.

  absorbed  the projections absorbed into q: batched matmul, softmax, batched matmul over the latents
  fused     one Triton pass: each block of latents is read once and used twice

q [B, H, 512 + 64], latents c [B, S, 512 + 64]; the first 512 columns are keys and values, the last 64 (rotary) keys alone. At 16
heads the latents' bytes decide, from some 90 heads on the FLOPs (DeepSeek-V2 and V3 have 128 heads).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Build, Params, Proof, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import attention


def latents(params: Params, device: str) -> tuple[Any, Any, Any, Any]:
    """q [B, H, V + R], c [B, capacity, V + R] with NaN past each length, lengths [B], out [B, H, V]."""
    import torch

    counts, width = attention.lengths(params), params["latent_dim"] + params["rope_dim"]
    q = attention.normal((len(counts), params["heads"], width), params, device, 0)
    c = attention.normal((len(counts), attention.capacity(params), width), params, device, 1)
    for sequence, count in enumerate(counts):
        attention.needles(c[sequence : sequence + 1], q[sequence].float().mean(0, keepdim=True), scale(params), count)
        c[sequence, count:] = float("nan")
    out = q.new_empty(len(counts), params["heads"], params["latent_dim"])
    return q, c, torch.tensor(counts, dtype=torch.int32, device=device), out


def scale(params: Params) -> float:
    """One over the root of the key width before absorption: 128 and the rotary part."""
    return float((params["key_dim"] + params["rope_dim"]) ** -0.5)


def _step(
    params: Params, device: str, given: tuple[Any, ...], make: Callable[[Any], Callable[[], object]], **more: Any
) -> Step:
    q, c, _, out = given
    tokens, width = sum(attention.lengths(params)), params["latent_dim"] + params["rope_dim"]
    moved = c.element_size() * (tokens * width + q.numel() + out.numel())
    run = attention.cold(params, device, c, lambda whole: whole.clone(), c.nbytes, make)
    return attention.step(run, out, (), 2 * tokens * params["heads"] * (width + params["latent_dim"]), moved, **more)


def build_absorbed(params: Params, device: str) -> Step:
    """Scores of all heads, softmax, weighted sum: three passes, sequences of one length together."""
    import torch

    given = latents(params, device)
    q, _, lengths, out = given
    parts = attention.alike(lengths.tolist())

    def make(c: Any) -> Callable[[], None]:
        def run() -> None:
            for part, count in parts:
                rows = c[part, :count]
                scores = torch.bmm(q[part], rows.transpose(1, 2)) * scale(params)
                out[part] = torch.bmm(torch.softmax(scores, -1), rows[..., : params["latent_dim"]])

        return run

    return _step(params, device, given, make, slack=attention.ROUNDED)


def build_fused(params: Params, device: str) -> Step:
    """One pass in Triton, on sm_90 in its lower level Gluon."""
    from moeprof.workloads.decode.mla_split import described, latent, latent_ways
    from moeprof.workloads.decode.split_kv import chosen

    given = latents(params, device)
    q, c, lengths, out = given
    key = ["mla", *q.shape, *c.shape, str(lengths.tolist()), params["dtype"]]
    way = chosen(key, latent_ways(q, out), lambda way: latent(way, q, c, lengths, out, scale(params))[0])
    return _step(
        params, device, given, lambda c: captured(latent(way, q, c, lengths, out, scale(params))[0]), facts=lambda: described(way)
    )  # fmt: skip


def reference(params: Params, given: tuple[Any, ...], factor: float, skip_last: int = 0) -> Any:
    """The attention [B, H, V] in higher precision, sequence by sequence."""
    import torch

    q, c, lengths, _ = given
    wide = attention.exact(params)
    found = []
    for sequence, count in enumerate(lengths.tolist()):
        rows = c[sequence, : max(1, count - skip_last)].to(wide)
        weights = torch.softmax(q[sequence].to(wide) @ rows.t() * factor, -1)
        found.append(weights @ rows[:, : params["latent_dim"]])
    return torch.stack(found)


def prove(params: Params, device: str, step: Step) -> Proof:
    """Every head of every sequence against the reference."""
    return attention.compare(params, device, step, reference(params, latents(params, device), scale(params)))


def _faulty(wrong: Callable[[Params, tuple[Any, ...]], Any], params: Params, device: str) -> Step:
    given = latents(params, device)
    return _step(params, device, given, lambda c: lambda: given[3].copy_(wrong(params, (given[0], c, *given[2:]))))


FAULTS: dict[str, Build] = {
    "mean-of-v": partial(_faulty, lambda params, given: reference(params, given, 0.0)),
    "no-scale": partial(_faulty, lambda params, given: reference(params, given, 1.0)),
    "last-key-skipped": partial(_faulty, lambda params, given: reference(params, given, scale(params), skip_last=1)),
    "zeros": partial(_faulty, lambda params, given: given[0][..., : params["latent_dim"]] * 0),
}

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
    prove=prove,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=FAULTS,
    ceilings=attention.ceilings,
    shows="one latent serves all heads: few heads are bound by its bytes, many by FLOPs",
    counted=8,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
