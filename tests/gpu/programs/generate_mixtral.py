"""Decode tokens with Mixtral of transformers, random weights and a small configuration: eager against grouped experts.

``python generate_mixtral.py eager`` prints the time per token by its own clock, and saves the logits of the last token below
MOEPROF_OUT. All variants decode the same tokens, so that they do the same work. Each token is a region of moeprof.

The embedding is large against what a layer adds. So the router chooses the same experts although the variants round differently.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from transformers import DynamicCache, MixtralConfig, MixtralForCausalLM

from moeprof import region

WARM_UP = 4  # tokens that the program's own clock leaves out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experts", choices=("eager", "grouped_mm", "batched_mm"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--zero-expert", action="store_true", help="a planted fault: two experts of the first layer are zero"
    )
    return parser.parse_args()


def model(given: argparse.Namespace) -> MixtralForCausalLM:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=4096, hidden_size=given.hidden, intermediate_size=given.hidden * 7 // 2, num_hidden_layers=given.layers,
        num_attention_heads=given.hidden // 64, num_key_value_heads=max(given.hidden // 256, 1), max_position_embeddings=4096,
    )  # fmt: skip
    with torch.device(given.device):
        made = MixtralForCausalLM(config).eval().to(torch.bfloat16)
        torch.nn.init.normal_(made.model.embed_tokens.weight, std=1.0)
    made.set_experts_implementation(given.experts)
    if given.zero_expert:
        for weight in made.model.layers[0].mlp.experts.parameters():
            weight.data[:2] = 0
    return made


@torch.no_grad()
def main() -> None:
    given = arguments()
    decoder = model(given)
    wait = torch.cuda.synchronize if given.device == "cuda" else lambda: None
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 4096, (given.batch, given.prompt + given.tokens), generator=generator).to(given.device)
    cache = DynamicCache()
    with region("prefill"):
        logits = decoder(input_ids=ids[:, : given.prompt], past_key_values=cache, use_cache=True).logits[:, -1]
    started = 0.0
    for number in range(given.tokens):
        if number == WARM_UP:
            wait()
            started = time.perf_counter()
        with region("token"):
            step = ids[:, given.prompt + number : given.prompt + number + 1]
            logits = decoder(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1]
    wait()
    took_ms = 1e3 * (time.perf_counter() - started) / (given.tokens - WARM_UP)
    print(f"{given.experts}: {took_ms:.4f} ms per token")
    out = os.environ.get("MOEPROF_OUT")
    if out is not None:
        torch.save({"logits": logits.float().cpu()}, Path(out) / "logits.pt")


if __name__ == "__main__":
    main()
