"""The router: routing, loads and capacity against plain references, every step proven, every planted fault caught."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, exp
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from moeprof.errors import UsageError, WorkloadError  # noqa: E402
from moeprof.running import Session  # noqa: E402
from moeprof.workload import load  # noqa: E402
from moeprof.workloads import _moe as moe  # noqa: E402
from moeprof.workloads import _moe_routing as routing  # noqa: E402
from moeprof.workloads import _tuning, router  # noqa: E402
from moeprof.workloads._moe_check import prove  # noqa: E402

WORKLOAD = load("router")
ON_CPU = ("dense", "topk", "grouped")
SMALL = {"tokens": "96", "hidden": "64", "inner": "48"}


def params(**more: Any) -> dict[str, Any]:
    return WORKLOAD.params("tiny", {**SMALL, **{k: str(v) for k, v in more.items()}})


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
    it = moe.layer(p, "cpu")
    drawn = moe.routed(p)[2]
    chosen, weights = routing.route(moe.logits(it), it.bias, p)
    assert torch.equal(chosen, drawn)  # the same experts in the same order
    assert all(len(set(row)) == topk for row in chosen.tolist())
    assert it.touched == len(chosen.unique())
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


def plain_places(chosen: list[list[int]], limit: int) -> set[tuple[int, int]]:
    """The assignments (token, k) that fit: all first choices in token order, then all second ones."""
    taken: dict[int, int] = {}
    kept = set()
    for k in range(len(chosen[0])):
        for token, row in enumerate(chosen):
            if taken.get(row[k], 0) < limit:
                taken[row[k]] = taken.get(row[k], 0) + 1
                kept.add((token, k))
    return kept


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


# ---- the steps


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ON_CPU)
def test_each_variant_is_proven_on_the_cpu(name: str, dtype: str) -> None:
    session = Session(WORKLOAD, WORKLOAD.variant(name), "cpu", params(dtype=dtype))
    proof = session.prove()
    assert proof.ok, proof.reason
    assert "96 of 96 tokens" in proof.checked
    assert ("combine exact" in proof.checked) == (name != "dense")
    assert proof.error is not None and proof.error < (1e-5 if dtype == "float32" else 6e-3)
    assert session.prove() == proof  # the probe left the weights as they were


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", sorted(WORKLOAD.faults))
def test_each_planted_fault_fails_the_proof_on_the_cpu(fault: str, dtype: str) -> None:
    p = params(dtype=dtype)
    proof = prove(p, "cpu", WORKLOAD.faults[fault](p, "cpu"))
    assert not proof.ok
    by_probe = fault == "bf16-combine" and dtype == "bfloat16"
    assert ("the combine rounds more than once" if by_probe else "differs from the reference") in proof.reason


def test_one_wrong_token_an_unwritten_one_and_a_changing_one_fail_the_proof() -> None:
    p = params()
    step = router.build_grouped(p, "cpu")
    calls: list[int] = []

    def spoiled(how: Any) -> Any:
        def run() -> None:
            step.run()
            how(step.output())

        return prove(p, "cpu", replace(step, run=run))

    def later(out: Any) -> None:
        calls.append(0)
        out[3, 0] += 1e-6 * (len(calls) > 1)

    wrong = spoiled(lambda out: out[7, :3].add_(0.01 * out.square().mean().sqrt()))
    assert not wrong.ok and "[7]" in wrong.reason
    unwritten = spoiled(lambda out: out[5].fill_(float("nan")))
    assert not unwritten.ok and unwritten.error is None
    assert "two runs of the same input differ" in spoiled(later).reason
    assert not prove(p, "cpu", replace(step, run=lambda: None)).ok  # an earlier right answer does not pass


def test_topk_compiles_without_a_graph_break() -> None:
    p = params()
    it = moe.layer(p, "cpu")
    compiled = torch.compile(router._capacity_layer, fullgraph=True, dynamic=False, backend="eager")
    eager = router._capacity_layer(p, it, routing.capacity(p))
    assert all(torch.equal(a, b) for a, b in zip(compiled(p, it, routing.capacity(p)), eager, strict=True))


def test_a_torch_without_grouped_mm_takes_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    p = params()
    monkeypatch.delattr(torch.nn.functional, "grouped_mm", raising=False)
    assert prove(p, "cpu", router.build_grouped(p, "cpu")).ok


def test_the_declared_work_is_that_of_the_formulas() -> None:
    p = params(experts=8, topk=2)
    steps = [WORKLOAD.variant(name).build(p, "cpu") for name in ON_CPU]
    assert {s.flops for s in steps} == {6 * 96 * 2 * 64 * 48 + 2 * 96 * 64 * 8}
    assert {s.bytes_moved for s in steps} == {4 * (8 * 3 * 64 * 48 + 2 * 96 * 64)}
    for step in steps:
        step.run()
    facts = [s.facts() for s in steps]
    assert all(sum(f["tokens of each expert"]) == 192 for f in facts)
    kept = len(plain_places(moe.routed(p)[2].tolist(), 30))
    assert kept < 192 and [f["rows computed / rows kept"] for f in facts] == [4.0, 8 * 30 / kept, 1.0]
    assert facts[0]["expert load, max / mean"] == max(facts[0]["tokens of each expert"]) / 24


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"routing": "hash"}, "is not a routing"),
        ({"load": "flat"}, "is not a load"),
        ({"topk": "9"}, "9 of 8 experts"),
        ({"experts": "128"}, "need hidden >= 128"),
        ({"groups": "3"}, "do not fit"),
        (
            {"routing": "deepseek", "groups": "4", "kept_groups": "3", "topk": "4", "load": "balanced"},
            "multiple of kept_groups",
        ),
    ],
)
def test_parameters_that_name_no_layer_are_refused(more: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        moe.layer(WORKLOAD.params("tiny", {**SMALL, **more}), "cpu")


def test_every_preset_names_a_layer() -> None:
    for name in WORKLOAD.presets:
        routing.check(WORKLOAD.params(name, {}))


# ---- tuning


def test_the_fastest_way_is_found_remembered_and_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ways, timed = [{"n": 1}, {"n": 2}, {"n": 3}], []

    def seconds(way: dict[str, Any]) -> float:
        timed.append(way["n"])
        if way["n"] == 1:
            raise RuntimeError("out of resources")
        return 1.0 / way["n"]

    assert _tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and timed == [1, 2, 3]
    assert _tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and timed == [1, 2, 3]  # remembered
    assert _tuning.fastest(["gpu", 65], ways[:2], seconds) == {"n": 2} and timed == [1, 2, 3, 1, 2]  # another shape
    for file in tmp_path.rglob("*.json"):
        file.write_text("{broken")
    assert _tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and len(timed) == 8


def test_no_working_way_is_an_error_and_a_missing_cache_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder cannot be made below a file
    assert _tuning.fastest(["k"], [{"n": 1}], lambda way: 1.0) == {"n": 1}

    def refused(way: dict[str, Any]) -> float:
        raise RuntimeError("first line\nno shared memory")

    with pytest.raises(WorkloadError, match="no shared memory"):
        _tuning.fastest(["k"], [{"n": 1}], refused)
    with pytest.raises(WorkloadError, match="there is none"):
        _tuning.fastest(["k"], [], refused)


# ---- on a GPU


def on_gpu(**more: Any) -> dict[str, Any]:
    return WORKLOAD.params(
        "seed", {"tokens": "512", "hidden": "256", "inner": "512", **{k: str(v) for k, v in more.items()}}
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", [v.name for v in WORKLOAD.variants])
@pytest.mark.parametrize(
    "more", [{}, {"routing": "deepseek", "groups": 8, "kept_groups": 2, "topk": 4, "load": "zipf"}]
)
def test_each_variant_is_proven_on_the_gpu(name: str, more: dict[str, Any]) -> None:
    session = Session(WORKLOAD, WORKLOAD.variant(name), "cuda", on_gpu(**more))
    proof = session.prove()
    assert proof.ok, proof.reason
    assert session.prove() == proof
    assert ("combine exact" in proof.checked) == (name != "dense")


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [16, 100, 3000])
@pytest.mark.parametrize("load_", ["balanced", "zipf"])
def test_fused_is_proven_at_thin_and_wide_tiles(tokens: int, load_: str) -> None:
    for more in ({"experts": 128, "topk": 8}, {"experts": 5, "topk": 2}, {"routing": "topk_softmax"}):
        p = on_gpu(tokens=tokens, load=load_, **more)
        step = router.build_fused(p, "cuda")
        proof = prove(p, "cuda", step)
        assert proof.ok, (more, proof.reason)
        assert sum(step.facts()["tokens of each expert"]) == tokens * p["topk"]


@pytest.mark.gpu
@pytest.mark.parametrize("fault", sorted(WORKLOAD.faults))
def test_each_planted_fault_fails_the_proof_on_the_gpu(fault: str) -> None:
    assert not prove(on_gpu(), "cuda", WORKLOAD.faults[fault](on_gpu(), "cuda")).ok


@pytest.mark.gpu
def test_the_graph_of_vectorized_holds_every_kernel_and_asks_the_host_for_nothing() -> None:
    from torch.profiler import ProfilerActivity, profile

    def traced(step: Any) -> tuple[int, set[str]]:
        step.run()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            step.run()
        events = found.events()
        kernels = [e for e in events if str(e.device_type).endswith("CUDA") and not e.name.startswith("Mem")]
        return len(kernels), {e.name for e in events if "Synchronize" in e.name and e.name != "cudaDeviceSynchronize"}

    p = on_gpu()
    eager, graph = traced(router.build_eager(p, "cuda")), traced(router.build_vectorized(p, "cuda"))
    assert graph[0] == eager[0] > 10
    assert not graph[1] and not eager[1]


@pytest.mark.gpu
def test_a_dtype_without_a_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="no kernel for float32"):
        router.build_fused(on_gpu(dtype="float32"), "cuda")
