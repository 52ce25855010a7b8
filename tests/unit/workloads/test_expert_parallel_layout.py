"""expert_parallel in one process: the layout and the order of what arrives against brute force, what is refused, the limit, registered memory."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available():
    pytest.skip("torch has no distributed here", allow_module_level=True)

from rank_processes import SMALL  # noqa: E402

from moeprof.errors import UsageError, WorkloadError  # noqa: E402
from moeprof.kernels.roofline import roof  # noqa: E402
from moeprof.storage.manifest import VariantRecord  # noqa: E402
from moeprof.workload.find import load  # noqa: E402
from moeprof.workload.model import Machine  # noqa: E402
from moeprof.workloads.expert_parallel import layer as local  # noqa: E402
from moeprof.workloads.expert_parallel import layout as ep  # noqa: E402
from moeprof.workloads.expert_parallel import registered_memory  # noqa: E402
from moeprof.workloads.expert_parallel.faults import Fault  # noqa: E402
from moeprof.workloads.router import layer as moe  # noqa: E402

WORKLOAD = load("expert_parallel")


def params(**more: Any) -> dict[str, Any]:
    return WORKLOAD.params("tiny", {k: str(v) for k, v in (SMALL | more).items()})


def made(rank: int, count: int, chunks: int, **more: Any) -> tuple[ep.Layout, Any]:
    p = params(**more)
    chosen = moe.routed({**p, "tokens": p["tokens"] * count})[2]
    return ep.layout(p, chosen, ep.Ranks(rank, count), chunks), chosen


def test_the_layout_counts_what_the_tokens_choose() -> None:
    for rank in range(4):
        layout, chosen = made(rank, 4, 3, load="zipf")
        for c in range(3):
            tokens = chosen.view(4, 48, -1)[:, layout.bounds[c] : layout.bounds[c + 1]]
            leave = [sum(2 * r <= e < 2 * r + 2 for e in tokens[rank].flatten().tolist()) for r in range(4)]
            arrive = [sum(2 * rank <= e < 2 * rank + 2 for e in tokens[s].flatten().tolist()) for s in range(4)]
            assert layout.splits(c) == (leave, arrive)
            assert sum(layout.expert_rows[c]) == sum(arrive) == layout.arrived(c).stop - layout.arrived(c).start


def test_each_rank_has_its_own_tokens_and_each_expert_its_own_weights() -> None:
    (one, chosen), (other, same) = (ep.inputs(params(), "cpu", ep.Ranks(rank, 2)) for rank in (0, 1))
    assert torch.equal(chosen, same) and torch.equal(one.router, other.router)
    assert (one.x - other.x).abs().mean() > 0.5
    assert torch.equal(one.w13[5], other.w13[5]) and (one.w13[5] - one.w13[4]).abs().mean() > 0.05
    assert torch.equal(ep.local_weights(one.w2, ep.Ranks(1, 2))[1], one.w2[5])
    assert not torch.equal(one.w13[4].flatten()[:24], one.w2[4].flatten()[:24])


def test_rows_that_arrive_are_put_in_the_order_of_the_experts() -> None:
    layout, _ = made(1, 2, 3, load="zipf")
    p = params(load="zipf")
    it = moe.Layer(*(torch.zeros(1) for _ in range(6)), touched=8)
    make = lambda name, shape, dtype: torch.zeros(*shape, dtype=dtype)  # noqa: E731
    layer = local.RankLayer(p, it, layout, local.buffers(p, layout, make, make), Fault())
    layer.buffers.counts_received.copy_(layout.counts[:, :, 4:].transpose(0, 1))
    layer.arrange()
    arrival = [
        (c, e, s) for c in range(3) for s in range(2) for e in range(4) for _ in range(layout.counts[c, s, 4 + e])
    ]
    assert [arrival[row] for row in layer.source.tolist()] == sorted(arrival)
    for c in range(3):
        rows = layout.arrived(c)
        assert layer.source[rows][layer.home[rows]].tolist() == list(range(rows.start, rows.stop))
        assert layer.ends[c].tolist() == torch.tensor(layout.expert_rows[c]).cumsum(0).tolist()


def test_the_kernels_of_the_gpu_do_what_plain_torch_does() -> None:
    """Gather, grouped_mm and SwiGLU as on a GPU, under Triton's interpreter."""
    pytest.importorskip("triton", reason="triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("with a GPU the kernels run compiled")
    layout, _ = made(0, 2, 2, load="zipf")
    p, source = params(load="zipf"), torch.Generator().manual_seed(3)
    weights = [0.1 * torch.randn(*shape, generator=source) for shape in ((4, 48, 32), (4, 32, 24))]
    it = moe.Layer(torch.zeros(1), *[torch.zeros(1)] * 2, *weights, torch.zeros(1), touched=8)
    make = lambda name, shape, dtype: torch.randn(*shape, generator=source).to(dtype)  # noqa: E731
    layer = local.RankLayer(p, it, layout, local.buffers(p, layout, make, make), Fault())
    layer.buffers.counts_received.copy_(layout.counts[:, :, :4].transpose(0, 1))
    layer.arrange()
    answers = []
    for gpu in (False, True):
        layer.half = layer.grouped = gpu
        layer.buffers.results.fill_(float("nan"))
        for c in range(2):
            layer.experts(c)
        answers.append(layer.buffers.results.clone())
    assert torch.allclose(*answers, atol=1e-6) and answers[0].abs().max() > 0.01


@pytest.mark.parametrize(
    ("more", "ranks", "words"),
    [
        ({}, 3, "experts=8 do not divide among 3 ranks"),
        ({"chunks": 49}, 2, "48 tokens cannot be cut into chunks=49"),
        ({"chunks": 0}, 2, "cannot be cut"),
        ({"topk": 9}, 2, "9 of 8 experts cannot be chosen"),
    ],
)
def test_parameters_that_name_no_layer_are_refused(more: dict[str, Any], ranks: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        WORKLOAD.resolve(params(**more), Machine(cuda=False, gpus=0, ranks=ranks))


def test_without_ranks_it_says_how_to_start_them() -> None:
    with pytest.raises(WorkloadError, match=r"torch\.distributed is not initialised") as caught:
        WORKLOAD.variant("baseline").build(params(), "cpu")
    assert "torchrun" in caught.value.hint


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(cuda=False, gpus=0, ranks=2), "needs a CUDA GPU"),
        (Machine(cuda=True, gpus=2, ranks=2), "reach each other"),
        (Machine(cuda=True, gpus=2, linked=True, ranks=4), "one host"),
        (Machine(cuda=True, gpus=2, linked=True, ranks=2), None),
        (Machine(cuda=True, gpus=1), None),
    ],
)
def test_peer_copy_says_why_it_cannot_run(machine: Machine, words: str | None) -> None:
    reason = WORKLOAD.variant("peer_copy").needs(machine)
    assert reason is None if words is None else reason is not None and words in reason
    assert (WORKLOAD.variant("graph").needs(machine) is None) == machine.cuda


def test_presets_are_complete_and_default_computes_more_than_it_sends() -> None:
    assert all(set(preset) == set(WORKLOAD.presets["default"]) for preset in WORKLOAD.presets.values())
    p = WORKLOAD.params("default", {})
    half = 2 * p["tokens"] * p["topk"] * p["hidden"] * 2 / 2  # bytes to the other of two ranks, there and back
    assert moe.flops(p) / 640e12 > 1.3 * half / 390e9
    assert p["tokens"] * p["topk"] / p["chunks"] / p["experts"] >= 512, "a chunk's GEMMs are large enough to be fast"


# ---- the limit


@pytest.mark.parametrize(("flops", "sent", "pieces", "ideal"), [(4e9, 1e6, 2, 4.5e6), (4e9, 1e6, 1, 5e6), (1e9, 8e6, 4, 8e6), (4e9, 1e6, 4, 4.25e6)])  # fmt: skip
def test_the_limit_leaves_the_first_and_the_last_piece_exposed(
    sample: Any, flops: float, sent: float, pieces: int, ideal: float
) -> None:
    from dataclasses import replace

    manifest = replace(
        sample.manifest, limit={"kind": "exchange", "flops_ceiling": "f", "bytes_ceiling": "b", "pieces": "chunks"},
        ceilings={"f": 1.0, "b": 1.0}, params={"chunks": pieces},
    )  # fmt: skip
    found = roof(manifest, VariantRecord("x", "", "ok", flops=int(flops), bytes_moved=int(sent)))
    assert found is not None and found.ideal_ns == pytest.approx(ideal) and found.pieces == pieces


# ---- registered memory


class Communicator:
    """A backend as torch's NCCL one has it since pools can be registered."""

    mem_allocator = "NCCL's"

    def __init__(self) -> None:
        self.pools: list[Any] = []

    def register_mem_pool(self, pool: Any) -> None:
        self.pools.append(pool)


@pytest.mark.parametrize(("ranks", "found"), [(2, True), (1, False)])
def test_one_pool_is_registered_and_used(monkeypatch: pytest.MonkeyPatch, ranks: int, found: bool) -> None:
    backend, used = Communicator(), []
    monkeypatch.setattr(registered_memory.ep, "rank_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(registered_memory.ep, "ranks", lambda: ep.Ranks(0, ranks))
    monkeypatch.setattr(registered_memory.ep, "barrier", lambda device: None)
    monkeypatch.setattr(
        torch.distributed.distributed_c10d._world, "default_pg", SimpleNamespace(_get_backend=lambda where: backend)
    )
    monkeypatch.setattr(torch.cuda, "MemPool", lambda allocator: {"of": allocator})
    monkeypatch.setattr(torch.cuda, "use_mem_pool", lambda pool: used.append(pool) or nullcontext())
    registered_memory._pool.cache_clear()
    try:
        assert registered_memory.registered("cuda") is found
        for _ in range(2):
            assert registered_memory.zeros((2, 3), torch.bfloat16, "cuda").tolist() == [[0, 0, 0]] * 2
    finally:
        registered_memory._pool.cache_clear()
    assert backend.pools == [{"of": "NCCL's"}] * found and used == [{"of": "NCCL's"}] * (2 * found)
