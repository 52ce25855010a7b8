"""The router's routing, loads and capacity against plain references."""

from __future__ import annotations

from math import ceil, exp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from builders.small_router import params, plain_places  # noqa: E402

from moeprof.workloads.router import layer as moe  # noqa: E402
from moeprof.workloads.router import routing  # noqa: E402
from moeprof.workloads.router import workload as router  # noqa: E402
from moeprof.workloads.router.check import prove  # noqa: E402

# ---- routing, against what a reader would write


def plain_route(logits: list[float], bias: list[float], p: dict[str, Any]) -> tuple[list[int], list[float]]:
    """One token's experts and weights, in plain Python."""
    experts, k = range(len(logits)), p["topk"]
    if p["routing"] == "deepseek":
        scores = [1 / (1 + exp(-x)) for x in logits]
        biased = [s + b for s, b in zip(scores, bias, strict=True)]
        size = len(logits) // p["groups"]
        groups = [sorted(biased[g * size : (g + 1) * size], reverse=True)[:2] for g in range(p["groups"])]
        kept = sorted(range(p["groups"]), key=lambda g: -sum(groups[g]))[: p["kept_groups"]]
        chosen = sorted((e for e in experts if e // size in kept), key=lambda e: -biased[e])[:k]
        weights = [scores[e] for e in chosen]
    else:
        chosen = sorted(experts, key=lambda e: -logits[e])[:k]
        over = chosen if p["routing"] == "topk_softmax" else experts
        weights = [exp(logits[e]) / sum(exp(logits[o]) for o in over) for e in chosen]
    if p["renormalise"] and p["routing"] != "topk_softmax":
        weights = [w / sum(weights) for w in weights]
    return chosen, [w * p["scale"] for w in weights]


@pytest.mark.parametrize("name", routing.ROUTINGS)
@pytest.mark.parametrize("more", [{}, {"renormalise": False}, {"scale": 2.5, "groups": 4, "kept_groups": 2, "topk": 3}])
def test_each_routing_is_what_its_name_says(name: str, more: dict[str, Any]) -> None:
    p = (
        params(routing=name, experts=16, topk=4, **more)
        if "topk" not in more
        else params(routing=name, experts=16, **more)
    )
    source = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 16, generator=source, dtype=torch.float64)
    bias = torch.rand(16, generator=source, dtype=torch.float64) - 0.5
    chosen, weights = routing.route(logits, bias, p)
    for t in range(50):
        expected = plain_route(logits[t].tolist(), bias.tolist(), p)
        assert chosen[t].tolist() == expected[0]
        assert weights[t].tolist() == pytest.approx(expected[1], rel=1e-12)


def test_the_three_routings_differ() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    bias = torch.tensor([0.0, 0.0, 0.9, 0.0], dtype=torch.float64)
    found = {
        name: routing.route(logits, bias, params(routing=name, experts=4, topk=2, renormalise=False))
        for name in routing.ROUTINGS
    }
    assert found["softmax_topk"][1].sum() < 0.95 and found["topk_softmax"][1].sum() == pytest.approx(1)
    assert found["deepseek"][0].tolist() == [[2, 0]]  # the bias chooses, and does not weigh:
    assert found["deepseek"][1][0, 0] == pytest.approx(0.5)


# ---- loads


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(routing.ROUTINGS), st.sampled_from(routing.LOADS), st.integers(0, 99), st.sampled_from([8, 16, 24]), st.integers(1, 4)
)  # fmt: skip
def test_a_load_is_routed_as_drawn(name: str, kind: str, seed: int, experts: int, topk: int) -> None:
    p = params(routing=name, load=kind, seed=seed, experts=experts, topk=topk, tokens=64)
    layer = moe.layer(p, "cpu")
    drawn = moe.routed(p)[2]
    chosen, weights = routing.route(moe.logits(layer), layer.bias, p)
    assert torch.equal(chosen, drawn)  # the same experts in the same order
    assert all(len(set(row)) == topk for row in chosen.tolist())
    assert layer.touched == len(chosen.unique())
    assert torch.isfinite(weights).all() and (weights > 0).all()


@pytest.mark.parametrize(("experts", "topk", "tokens"), [(8, 2, 64), (128, 8, 64), (24, 5, 48), (16, 3, 32)])
def test_a_balanced_load_is_exact_where_it_can_be(experts: int, topk: int, tokens: int) -> None:
    p = params(experts=experts, topk=topk, tokens=tokens, hidden=128, load="balanced")
    counts = torch.bincount(routing.load(p, torch.Generator().manual_seed(0)).flatten(), minlength=experts)
    assert (counts == tokens * topk // experts).all()


def test_a_balanced_load_holds_to_the_groups() -> None:
    p = params(routing="deepseek", experts=32, topk=4, groups=8, kept_groups=2, tokens=128, load="balanced")
    chosen = routing.load(p, torch.Generator().manual_seed(0))
    assert (torch.bincount(chosen.flatten(), minlength=32) == 16).all()
    assert all(len({e // 4 for e in row}) == 2 for row in chosen.tolist())


def test_a_zipf_load_falls_with_the_rank() -> None:
    p = params(experts=16, topk=1, tokens=4000, load="zipf")
    counts = (
        torch.bincount(routing.load(p, torch.Generator().manual_seed(0)).flatten(), minlength=16)
        .sort(descending=True)
        .values
    )
    harmonic = sum(1 / r for r in range(1, 17))
    for rank in (1, 2, 4, 8):
        assert counts[rank - 1] / 4000 == pytest.approx(1 / rank / harmonic, rel=0.2)


# ---- capacity


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(4, 9), st.floats(0.1, 3.0), st.integers(0, 999))
def test_a_capacity_keeps_first_choices_first(tokens: int, topk: int, experts: int, factor: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, experts, generator=source).topk(topk, dim=-1).indices
    p = params(tokens=tokens, topk=topk, experts=experts, capacity_factor=factor)
    limit = routing.capacity(p)
    assert limit == min(tokens, max(1, ceil(factor * tokens * topk / experts)))
    kept = routing.places(chosen, experts) < limit
    assert {(t, k) for t, k in kept.nonzero().tolist()} == plain_places(chosen.tolist(), limit)
    assert torch.bincount(chosen[kept], minlength=experts).max() <= limit
    assert int(kept.sum()) + int((~kept).sum()) == tokens * topk
    assert bool(kept.all()) or factor < experts / topk  # no drop once the capacity reaches every token


def test_what_is_dropped_is_counted_and_a_full_capacity_drops_nothing() -> None:
    tight = params(load="zipf", capacity_factor=0.75)
    step = router.build_topk(tight, "cpu")
    assert prove(tight, "cpu", step).ok
    chosen = moe.routed(tight)[2].tolist()
    lost = 96 * 2 - len(plain_places(chosen, routing.capacity(tight)))
    assert lost > 0 and step.facts()["dropped assignments (%)"] == pytest.approx(100 * lost / 192)
    full = params(load="zipf", capacity_factor=4.0)
    all_kept, dropless = router.build_topk(full, "cpu"), router.build_grouped(full, "cpu")
    all_kept.run()
    dropless.run()
    assert all_kept.facts()["dropped assignments (%)"] == 0
    assert torch.allclose(all_kept.output(), dropless.output(), rtol=1e-5, atol=1e-6)
