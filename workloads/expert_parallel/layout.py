"""The ranks of expert_parallel, which rank has which expert, the split sizes, and the inputs of a rank.

Rank r of N has T tokens and the experts r E/N to (r + 1) E/N. Everything follows from the seed, so that each rank knows how many
rows every rank sends to every expert, and can make the weights of any expert for its proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from moeprof.errors import UsageError, WorkloadError
from moeprof.workload.model import Params
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing

W13, W2, TOKENS = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Ranks:
    """This process among those that run the layer together."""

    rank: int
    count: int


def ranks() -> Ranks:
    """This process in torch.distributed; raises WorkloadError if it is not initialised."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        raise WorkloadError(
            "expert_parallel runs in ranks, and torch.distributed is not initialised",
            "torchrun --nproc-per-node N -m moeprof.workloads.expert_parallel",
        )
    return Ranks(dist.get_rank(), dist.get_world_size())


def barrier(device: str) -> None:
    """Return when every rank has called this."""
    import torch
    import torch.distributed as dist

    dist.barrier(device_ids=[torch.cuda.current_device()] if device == "cuda" else None)


def check(params: Params, count: int) -> None:
    """Raise UsageError if the parameters do not fit ``count`` ranks."""
    experts, chunks, tokens = params["experts"], params["chunks"], params["tokens"]
    if experts % count:
        raise UsageError(
            f"experts={experts} do not divide among {count} ranks", f"give a multiple of {count}, or other ranks"
        )
    if not 1 <= chunks <= tokens:
        raise UsageError(f"{tokens} tokens cannot be cut into chunks={chunks}", "give 1 <= chunks <= tokens")
    routing.check({**params, "tokens": tokens * count})


@dataclass(frozen=True)
class Layout:
    """Who sends how many rows to whom.

    ``bounds`` [C + 1]: the tokens of chunk c are those from bounds[c] to bounds[c + 1]. ``counts`` [C, N, E] (on the CPU): rows
    that rank s sends to expert e in chunk c, one for each chosen expert.
    """

    ranks: Ranks
    bounds: tuple[int, ...]
    counts: Any
    topk: int

    @property
    def chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def local(self) -> int:
        """Experts of a rank."""
        return int(self.counts.shape[2] // self.ranks.count)

    @cached_property
    def between(self) -> list[list[list[int]]]:
        """[chunk][from rank][to rank]: rows."""
        rows: list[list[list[int]]] = self.counts.unflatten(2, (self.ranks.count, self.local)).sum(3).tolist()
        return rows

    @cached_property
    def expert_rows(self) -> list[list[int]]:
        """[chunk][expert of this rank]: rows that arrive for it."""
        first = self.ranks.rank * self.local
        rows: list[list[int]] = self.counts[:, :, first : first + self.local].sum(1).tolist()
        return rows

    @cached_property
    def received(self) -> list[int]:
        """[C + 1]: where the rows that arrive in chunk c begin."""
        return [0, *accumulate(sum(rows) for rows in self.expert_rows)]

    def sent(self, chunk: int) -> slice:
        """The rows of ``chunk`` among those that this rank sends."""
        return slice(self.bounds[chunk] * self.topk, self.bounds[chunk + 1] * self.topk)

    def arrived(self, chunk: int) -> slice:
        """The rows of ``chunk`` among those that this rank receives."""
        return slice(self.received[chunk], self.received[chunk + 1])

    def splits(self, chunk: int) -> tuple[list[int], list[int]]:
        """Rows that this rank sends to each rank, and receives from each, in ``chunk``."""
        rank = self.ranks.rank
        return self.between[chunk][rank], [row[rank] for row in self.between[chunk]]

    def rows(self, rank: int) -> int:
        """Rows that ``rank`` computes in an iteration."""
        return sum(row[rank] for chunk in self.between for row in chunk)

    def crossing(self, rank: int) -> tuple[int, int]:
        """Rows that ``rank`` sends to, and receives from, other ranks in an iteration's dispatch."""
        others = [r for r in range(self.ranks.count) if r != rank]
        return (
            sum(chunk[rank][r] for chunk in self.between for r in others),
            sum(chunk[r][rank] for chunk in self.between for r in others),
        )


def layout(params: Params, chosen: Any, group: Ranks, chunks: int) -> Layout:
    """The layout of the experts ``chosen`` [N T, K] by the tokens of all ranks in turn."""
    import torch

    tokens, experts = params["tokens"], params["experts"]
    bounds = tuple(tokens * c // chunks for c in range(chunks + 1))
    counts = torch.stack([
        torch.stack([torch.bincount(tokens_of_rank[a:b].flatten(), minlength=experts) for tokens_of_rank in chosen.split(tokens)])
        for a, b in pairwise(bounds)
    ])  # fmt: skip
    return Layout(group, bounds, counts, params["topk"])


def rank_device(device: str) -> Any:
    """This rank's device, with its number."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def _source(params: Params, where: Any, stream: int, index: int) -> Any:
    import torch

    seed = (params["seed"] + 1) * 1_000_003 + stream * 65_537 + index
    return torch.Generator(device=where).manual_seed(seed)


@dataclass(frozen=True)
class Experts:
    """One weight of every expert, w13 [2I, H] or w2 [H, I]; indexing by an expert makes its weight from the seed."""

    params: Params
    where: Any
    part: int  # W13 or W2

    def __len__(self) -> int:
        return int(self.params["experts"])

    def __getitem__(self, expert: int) -> Any:
        import torch

        hidden, inner = self.params["hidden"], self.params["inner"]
        shape = (2 * inner, hidden) if self.part == W13 else (hidden, inner)
        source = _source(self.params, self.where, self.part, expert)
        made = torch.randn(*shape, generator=source, device=self.where) * shape[1] ** -0.5
        return made.to(moe.dtype(self.params))


def inputs(params: Params, device: str, group: Ranks) -> tuple[moe.Layer, Any]:
    """The layer as this rank sees it, w13 and w2 being ``Experts``, and the experts [N T, K] that all tokens choose."""
    import torch

    check(params, group.count)
    tokens, where, kind = params["tokens"], rank_device(device), moe.dtype(params)
    target_logits, bias, chosen = moe.routed({**params, "tokens": tokens * group.count})
    logits_here = target_logits[group.rank * tokens : (group.rank + 1) * tokens].to(where)
    columns = torch.randn(params["hidden"], params["experts"], generator=torch.Generator().manual_seed(params["seed"]))
    router = torch.linalg.qr(columns).Q.t().contiguous().to(where)
    source = _source(params, where, TOKENS, group.rank)
    noise = torch.randn(tokens, params["hidden"], generator=source, device=where)
    x = noise - (noise @ router.t()) @ router + logits_here @ router
    w13, w2 = Experts(params, where, W13), Experts(params, where, W2)
    out = torch.empty(x.shape, dtype=kind, device=where)
    return moe.Layer(x.to(kind), router.to(kind), bias.to(where), w13, w2, out, len(chosen.unique())), chosen


def local_weights(experts: Experts, group: Ranks) -> Any:
    """[E/N, ...]: the weights of this rank's experts."""
    import torch

    local = len(experts) // group.count
    first = experts[group.rank * local]
    stacked = torch.empty(local, *first.shape, dtype=first.dtype, device=first.device)
    for index in range(local):
        stacked[index] = experts[group.rank * local + index]
    return stacked
