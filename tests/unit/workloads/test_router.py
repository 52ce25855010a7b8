"""The router: every step proven and every planted fault caught, on the CPU and on a GPU; the tuning of its kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from builders.small_router import SMALL, WORKLOAD, params, plain_places  # noqa: E402

from moeprof.errors import UsageError, WorkloadError  # noqa: E402
from moeprof.worker.built_variant import Session  # noqa: E402
from moeprof.workloads.common import tuning  # noqa: E402
from moeprof.workloads.router import layer as moe  # noqa: E402
from moeprof.workloads.router import routing, topk  # noqa: E402
from moeprof.workloads.router import workload as router  # noqa: E402
from moeprof.workloads.router.check import prove  # noqa: E402

ON_CPU = ("dense", "topk", "grouped")


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
    layer = moe.layer(p, "cpu")
    compiled = torch.compile(topk.capacity_layer, fullgraph=True, dynamic=False, backend="eager")
    eager = topk.capacity_layer(p, layer, routing.capacity(p))
    assert all(torch.equal(a, b) for a, b in zip(compiled(p, layer, routing.capacity(p)), eager, strict=True))


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

    assert tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and timed == [1, 2, 3]
    assert tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and timed == [1, 2, 3]  # remembered
    assert tuning.fastest(["gpu", 65], ways[:2], seconds) == {"n": 2} and timed == [1, 2, 3, 1, 2]  # another shape
    for file in tmp_path.rglob("*.json"):
        file.write_text("{broken")
    assert tuning.fastest(["gpu", 64], ways, seconds) == {"n": 3} and len(timed) == 8


def test_no_working_way_is_an_error_and_a_missing_cache_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder cannot be made below a file
    assert tuning.fastest(["k"], [{"n": 1}], lambda way: 1.0) == {"n": 1}

    def refused(way: dict[str, Any]) -> float:
        raise RuntimeError("first line\nno shared memory")

    with pytest.raises(WorkloadError, match="no shared memory"):
        tuning.fastest(["k"], [{"n": 1}], refused)
    with pytest.raises(WorkloadError, match="there is none"):
        tuning.fastest(["k"], [], refused)


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
    eager, graph = traced(topk.build_eager(p, "cuda")), traced(router.build_vectorized(p, "cuda"))
    assert graph[0] == eager[0] > 10
    assert not graph[1] and not eager[1]


@pytest.mark.gpu
def test_a_dtype_without_a_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="no kernel for float32"):
        router.build_fused(on_gpu(dtype="float32"), "cuda")
