"""Which token goes to which expert: routing semantics, the load of a benchmark, the queues of a capacity.

Three semantics:

softmax_topk  softmax over all experts, the K largest; their weights sum to 1 only if renormalised (Qwen3, Mixtral)
topk_softmax  the K largest logits, softmax over those alone (gpt-oss)
deepseek      sigmoid scores, to which a bias is added for the choice alone; only the groups with the best sum of two scores are
              eligible; weights are the unbiased scores, renormalised and scaled (DeepSeek-V3)
"""

from __future__ import annotations

from math import lcm
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Params

ROUTINGS = ("softmax_topk", "topk_softmax", "deepseek")
LOADS = ("balanced", "multinomial", "zipf")
GAP = 0.05  # between the logits of a token's chosen experts: small, so that their weights nearly cancel in the proof's probe


def check(params: Params) -> None:
    """Raise UsageError if the parameters do not describe a layer."""
    experts, topk, groups = params["experts"], params["topk"], params["groups"]
    for key, known in (("routing", ROUTINGS), ("load", LOADS)):
        if params[key] not in known:
            raise UsageError(f"parameter {key}={params[key]!r} is not a {key}", f"give one of {', '.join(known)}")
    if not 1 <= topk <= experts or min(params["tokens"], params["inner"]) < 1:
        raise UsageError(
            f"{topk} of {experts} experts cannot be chosen", "give 1 <= topk <= experts, and sizes above 0"
        )
    if experts > params["hidden"]:
        raise UsageError(
            f"{experts} experts need hidden >= {experts}, not {params['hidden']}", "their router rows are orthogonal"
        )
    if (
        experts % groups
        or not 1 <= params["kept_groups"] <= groups
        or topk > params["kept_groups"] * (experts // groups)
    ):
        raise UsageError(f"groups={groups}, kept_groups={params['kept_groups']} do not fit {topk} of {experts} experts", "let groups divide experts")  # fmt: skip
    if grouped(params) and params["load"] == "balanced" and topk % params["kept_groups"]:
        raise UsageError("a balanced load needs topk to be a multiple of kept_groups", "give load=multinomial")


def grouped(params: Params) -> bool:
    """Whether only some groups of experts are eligible."""
    return bool(params["routing"] == "deepseek" and params["kept_groups"] < params["groups"])


def route(logits: Any, bias: Any, params: Params) -> tuple[Any, Any]:
    """Experts [T, K] (int64, best first) and their weights [T, K] (of the logits' dtype) from logits [T, E]."""
    import torch

    if params["routing"] == "topk_softmax":
        best, chosen = logits.topk(params["topk"], dim=-1)
        return chosen, torch.softmax(best, -1) * params["scale"]
    if params["routing"] == "softmax_topk":
        weights, chosen = torch.softmax(logits, -1).topk(params["topk"], dim=-1)
    else:
        scores = torch.sigmoid(logits)
        chosen = _kept(scores + bias, params).topk(params["topk"], dim=-1).indices
        weights = scores.gather(1, chosen)
    if params["renormalise"]:
        weights = weights / weights.sum(-1, keepdim=True)
    return chosen, weights * params["scale"]


def _kept(choice: Any, params: Params) -> Any:
    """Scores, minus infinity for groups that are not eligible."""
    if not grouped(params):
        return choice
    members = choice.unflatten(-1, (params["groups"], -1))
    value = members.topk(min(2, members.shape[-1]), dim=-1).values.sum(-1)
    best = value.topk(params["kept_groups"], dim=-1).indices
    keep = (value * 0).scatter(-1, best, 1.0).unsqueeze(-1)
    return members.masked_fill(keep == 0, float("-inf")).flatten(-2)


def load(params: Params, source: Any) -> Any:
    """The experts [T, K] (int64, first choice first) that each token shall choose, drawn from ``source``, a CPU generator.

    balanced: every expert equally often, exactly if T K / E is a whole number; multinomial: all experts equally likely; zipf:
    the expert of rank r has a probability proportional to 1 / r, without replacement for one token.
    """
    import torch

    tokens, experts, topk = params["tokens"], params["experts"], params["topk"]
    if params["load"] == "balanced":
        return _balanced(params, source)
    chance = torch.zeros(experts, dtype=torch.float64)
    if params["load"] == "zipf":
        chance = -torch.log(torch.arange(1, experts + 1, dtype=torch.float64))[
            torch.randperm(experts, generator=source)
        ]
    keys = chance - torch.log(-torch.log(torch.rand(tokens, experts, generator=source, dtype=torch.float64)))
    if grouped(params):
        mass = chance.exp().unflatten(0, (params["groups"], -1)).sum(-1).log()
        noise = torch.rand(tokens, params["groups"], generator=source, dtype=torch.float64)
        allowed = (mass - torch.log(-torch.log(noise))).topk(params["kept_groups"], dim=-1).indices
        open_ = torch.zeros(tokens, params["groups"]).scatter(1, allowed, 1.0)
        keys = keys.masked_fill(open_.repeat_interleave(experts // params["groups"], 1) == 0, float("-inf"))
    return keys.topk(topk, dim=-1).indices


def _balanced(params: Params, source: Any) -> Any:
    """Tokens draw K cards each from shuffled decks of all experts; a deck is used up after lcm(E, K) / K tokens."""
    import torch

    tokens, experts, topk = params["tokens"], params["experts"], params["topk"]
    shuffle = torch.randperm(tokens, generator=source)
    if grouped(params):
        return _balanced_groups(params, source)[shuffle]
    period = lcm(experts, topk) // topk
    decks = torch.stack([torch.randperm(experts, generator=source) for _ in range(-(-tokens // period))])
    card = (torch.arange(tokens * topk) % experts).view(tokens, topk)
    return decks[torch.arange(tokens) // period].gather(1, card)[shuffle]


def _balanced_groups(params: Params, source: Any) -> Any:
    """Groups are drawn as experts are, and each visit to a group takes its next experts."""
    import torch

    tokens, size = params["tokens"], params["experts"] // params["groups"]
    experts_per_group = params["topk"] // params["kept_groups"]
    dealt = {**params, "experts": params["groups"], "topk": params["kept_groups"], "groups": 1, "kept_groups": 1}
    groups = _balanced(dealt, source)  # [T, kept]
    marks = torch.zeros(tokens, params["groups"], dtype=torch.int64).scatter(1, groups, 1)
    visit = (marks.cumsum(0) - marks).gather(1, groups)
    inside = (visit[:, :, None] * experts_per_group + torch.arange(experts_per_group)) % size
    return (groups[:, :, None] * size + inside).flatten(1)


def wanted_logits(chosen: Any, bias: Any, params: Params, source: Any) -> Any:
    """Logits [T, E] (float32) that make ``route`` choose ``chosen`` in its order, with room for rounding.

    A trained router has near ties, which two correct implementations may break differently. Here the chosen experts differ from
    each other by GAP and from the others by more, so that a proof can require the same choice.
    """
    import torch

    tokens, experts, topk = params["tokens"], params["experts"], params["topk"]
    order = torch.arange(topk, dtype=torch.float32)
    jitter = 0.2 * GAP * torch.rand(tokens, topk, generator=source)
    if params["routing"] != "deepseek":
        others = (0.3 * torch.randn(tokens, experts, generator=source) - 0.8).clamp(max=0.3)
        return others.scatter(1, chosen, 1.0 + GAP * (topk - 1 - order) + jitter)
    others = 0.2 + 0.15 * torch.rand(tokens, experts, generator=source)
    step = min(0.02, 0.14 / topk)
    score = others.scatter(1, chosen, 0.71 + step * (topk - 1 - order) + 0.2 * step * jitter / GAP) - bias
    return torch.logit(score)


def capacity(params: Params) -> int:
    """Rows that an expert has at most: ceil(capacity_factor * T * K / E), and no more than T."""
    exact = params["capacity_factor"] * params["tokens"] * params["topk"] / params["experts"]
    return min(params["tokens"], max(1, -int(-exact // 1)))


def places(chosen: Any, experts: int) -> Any:
    """The place [T, K] of each assignment in its expert's queue: first choices before second ones, each in token order."""
    import torch

    tokens, topk = chosen.shape
    queue = chosen.t().reshape(-1)  # all first choices, then all second ones
    hot = (queue.unsqueeze(0) == torch.arange(experts, device=chosen.device).unsqueeze(1)).to(torch.int32)
    place = (hot.cumsum(1, dtype=torch.int32) * hot).sum(0, dtype=torch.int32) - 1
    return place.view(topk, tokens).t()
