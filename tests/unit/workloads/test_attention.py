"""Decode attention: the variants and faults on the CPU, the kernels in Triton's interpreter, all of it on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="triton is not installed")

from moeprof.errors import UsageError  # noqa: E402
from moeprof.worker.built_variant import Session  # noqa: E402
from moeprof.workload.find import load  # noqa: E402
from moeprof.workloads.decode import (  # noqa: E402
    attention,
    attention_paged,
    check,
    mla,
    sequences,
    split_kv,
)
from moeprof.workloads.decode.kernels import attention as kernels  # noqa: E402
from moeprof.workloads.decode.kernels import mla as mla_kernels  # noqa: E402

ATTENTION, MLA = load("decode_attention"), load("mla_decode")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_CPU = [(ATTENTION, "naive"), (ATTENTION, "sdpa"), (ATTENTION, "math"), (MLA, "absorbed")]
CASES = [{}, {"lengths": "100,7,384,65"}, {"dtype": "bfloat16"}, {"batch": "1", "length": "1"}]


@pytest.mark.parametrize("more", CASES, ids=str)
@pytest.mark.parametrize(("workload", "name"), ON_CPU, ids=lambda v: getattr(v, "name", v))
def test_each_variant_is_proven_on_the_cpu(workload: Any, name: str, more: dict[str, str]) -> None:
    session = Session(workload, workload.variant(name), "cpu", workload.params("tiny", more))
    proof = session.prove()
    assert proof.ok, proof.reason
    assert proof.error is not None and proof.error < (1e-5 if "dtype" not in more else 8e-3)


@pytest.mark.parametrize("more", CASES[:3], ids=str)
@pytest.mark.parametrize(
    ("workload", "fault"),
    [(w, f) for w in (ATTENTION, MLA) for f in sorted(w.faults)],
    ids=lambda v: getattr(v, "name", v),
)
def test_each_planted_fault_fails_the_proof(workload: Any, fault: str, more: dict[str, str]) -> None:
    p = workload.params("tiny", more)
    proof = workload.prove(p, "cpu", workload.faults[fault](p, "cpu"))
    assert not proof.ok and "differs from the reference" in proof.reason


def test_a_tail_that_is_read_and_a_wrong_head_fail_the_proof() -> None:
    p = ATTENTION.params("tiny", {})
    kv = attention.cache(p, "cpu")
    expected = attention.reference(p, kv)

    def proof(wrong: Any) -> Any:
        return check.compare(p, "cpu", sequences.step(lambda: kv.out.copy_(wrong), kv.out, (), 1, 1), expected)

    assert proof(expected).ok
    longer = attention.reference(p, replace(kv, lengths=kv.lengths + 1))
    assert not proof(longer).ok  # one row of NaN
    spoiled = expected.clone()
    spoiled[2, 5] *= 1 + 1e-4
    assert "[[2, 5]]" in proof(spoiled).reason


def test_the_declared_work_counts_each_sequence_by_its_length() -> None:
    p = ATTENTION.params("tiny", {"lengths": "100,7,384,65"})
    step = ATTENTION.variant("naive").build(p, "cpu")
    assert step.flops == 4 * 556 * 8 * 32
    assert step.bytes_moved == 4 * (2 * 556 * 2 * 32 + 2 * 4 * 8 * 32)
    p = MLA.params("tiny", {})
    step = MLA.variant("absorbed").build(p, "cpu")
    assert step.flops == 2 * 600 * 4 * (80 + 64)
    assert step.bytes_moved == 4 * (600 * 80 + 3 * 4 * 80 + 3 * 4 * 64)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"lengths": "4,x"}, "no list of numbers"), ({"length": "0"}, "at least one cached token"), ({"kv_heads": "3"}, "cannot share"),
        ({"backend": "fast"}, "is not a backend"),
    ],
)  # fmt: skip
def test_parameters_that_name_no_cache_are_refused(more: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        attention.cache(ATTENTION.params("tiny", more), "cpu")


def test_pages_hold_the_cache_and_the_table_points_outside_past_a_length() -> None:
    p = ATTENTION.params("tiny", {"lengths": "100,7,384,65"})
    kv = attention.cache(p, "cpu")
    k, _, table = attention_paged.paged(kv, 16, 0)
    assert len(k) == 7 + 1 + 24 + 5 and sorted(table[table < len(k)].tolist()) == list(range(len(k)))
    for sequence, count in enumerate([100, 7, 384, 65]):
        pages = -(-count // 16)
        rows = k[table[sequence, :pages].long()].transpose(0, 1).flatten(1, 2)[:, :count]
        assert torch.equal(rows, kv.k[sequence, :, :count])
        assert (table[sequence, pages:] == 1 << 30).all()


def test_tails_are_poisoned_and_the_ends_of_a_sequence_weigh() -> None:
    p = ATTENTION.params("llama8b", {"batch": "1", "length": "2000", "dtype": "float32"})
    kv = attention.cache(p, "cpu")
    assert kv.k.shape[2] == 2048 and torch.isnan(kv.k[0, :, 2000:]).all() and torch.isnan(kv.v[0, :, 2000:]).all()
    scores = torch.einsum("hgd,hsd->hgs", kv.q[0].unflatten(0, (8, 4)), kv.k[0, :, :2000]) * 128**-0.5
    weights = torch.softmax(scores, -1).mean((0, 1))
    assert min(weights[0], weights[-1]) > 0.05 and weights[1:-1].sum() > 0.3
    c = mla.latents(MLA.params("tiny", {}), "cpu")[1]
    assert torch.isnan(c[:, 200:]).all() and torch.isfinite(c[:, :200]).all()


# ---- the kernels


class Launch:
    """Scratch of a launch, poisoned; counters zero."""

    def __init__(self, programs: int, units: int, width: int) -> None:
        self.programs = programs
        self.parts = torch.full((2 * programs, 16, width), float("nan"), device=DEVICE)
        self.stats = torch.full((2 * programs, 2, 16), float("nan"), device=DEVICE)
        self.counts = torch.zeros(units, dtype=torch.int32, device=DEVICE)


def combine(lengths: Any, out: Any, made: Launch, units: int, group: int, side: int = 1) -> None:
    """Add up what the programs left, two parts of 16 columns at a time."""
    kernels.combine[(out.shape[0] * out.shape[1] * (out.shape[2] // 16),)](
        lengths, out, made.parts, made.stats, out.shape[0], UNITS=units, G=group, GP=16, D=out.shape[2], BP=4, BN=16, SIDE=side, HOLDERS=2, COLUMNS=16,
        EARLY=False, launched=made.programs,
    )  # fmt: skip


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 60))
def test_the_programs_that_share_a_unit_are_counted(lengths: list[int], lines: int, launched: int) -> None:
    blocks = [-(-length // 4) for length in lengths for _ in range(lines)]
    owners, total = [], sum(blocks)
    programs = min(total, launched)
    for program in range(programs):
        owners += [program] * (total * (program + 1) // programs - total * program // programs)
    units = [owners[sum(blocks[:i]) : sum(blocks[: i + 1])] for i in range(len(blocks))]
    assert split_kv.max_programs_per_unit(launched, 4, lengths, lines) == max(len(set(unit)) for unit in units)


@given(st.integers(1, 300), st.integers(1, 2000))
def test_whole_units_leave_no_rest(programs: int, units: int) -> None:
    found = split_kv.program_count(programs, units, True)
    assert 1 <= found <= programs and split_kv.program_count(programs, units, False) == programs
    if units <= programs:
        assert found % units == 0 and found + units > programs
        assert split_kv.max_programs_per_unit(found, 1, [found // units] * units, 1) == found // units
    else:
        assert found == programs or (units % found == 0 and units // found == -(-units // programs))


LENGTHS = ["50,7,130,64", "64,64", "1,1,300", "128,128,128,128"]
PAGES = [(0, True), (8, True), (32, False)]
# Triton's interpreter takes seconds a case: there each pair of values occurs, on a GPU each combination.
EVERY = [(n, p, s, *page) for n in LENGTHS for p in (5, 60) for s in (False, True) for page in PAGES]
PAIRS = [
    (lengths, (5, 60)[(i + j) % 2], (i // 2 + j) % 2 == 1, *page)
    for i, lengths in enumerate(LENGTHS)
    for j, page in enumerate(PAGES)
]


def test_the_pairs_are_all_there() -> None:
    of_every, of_pairs = (
        {(a, b, case[a], case[b]) for case in cases for a in range(4) for b in range(a)} for cases in (EVERY, PAIRS)
    )
    assert of_pairs == of_every and len(PAIRS) == 12


@pytest.mark.parametrize(("lengths", "programs", "swap", "page", "inside"), EVERY if DEVICE == "cuda" else PAIRS)
def test_the_decode_kernel_is_attention(lengths: str, programs: int, swap: bool, page: int, inside: bool) -> None:
    p = ATTENTION.params("tiny", {"lengths": lengths, "dtype": "float16", "q_heads": "6", "kv_heads": "2"})
    kv = attention.cache(p, DEVICE)
    k, v, table = (kv.k, kv.v, kv.lengths) if page == 0 else attention_paged.paged(kv, page, 0)
    made = Launch(programs, len(kv.q) * 2, 32)
    for _ in range(2):  # the counters are left as they were found
        kv.out.fill_(float("nan"))
        kernels.decode[(programs,)](
            kv.q, k, v, kv.lengths, table, kv.out, made.parts, made.stats, made.counts, 32**-0.5 * sequences.LOG2E, len(kv.q), table.shape[-1],
            kv.k.shape[2], HKV=2, G=3, GP=16, D=32, BP=4, BN=16, PAGE=page, CHUNK=2, SWAP=swap, launched=programs, INSIDE=inside, EARLY=False,
        )  # fmt: skip
        if not inside:
            combine(kv.lengths, kv.out, made, 2, 3)
        expected = attention.reference(p, kv)
        assert float((kv.out.float() - expected).norm() / expected.norm()) < 1e-3
        assert not made.counts.any()


MLA_CASES = [
    (lengths, programs, inside)
    for i, lengths in enumerate(LENGTHS)
    for j, programs in enumerate((1, 7))
    for inside in (False, True)
    if DEVICE == "cuda" or inside == ((i + j) % 2 == 1)  # in the interpreter each pair of values
]


@pytest.mark.parametrize(("lengths", "programs", "inside"), MLA_CASES)
def test_the_mla_kernel_is_attention(lengths: str, programs: int, inside: bool) -> None:
    p = MLA.params("tiny", {"lengths": lengths, "dtype": "float16"})
    q, c, counts, out = given = mla.latents(p, DEVICE)
    made = Launch(programs, 2 * len(q), 64)
    out.fill_(float("nan"))
    mla_kernels.mla[(programs,)](
        q, c, counts, out, made.parts, made.stats, made.counts, mla.scale(p) * sequences.LOG2E, len(q), c.shape[1],
        UNITS=2, G=2, GP=16, DV=64, DR=16, BP=4, BN=16, launched=programs, INSIDE=inside,
    )  # fmt: skip
    if not inside:
        combine(counts, out, made, 2, 2)
    expected = mla.reference(p, given, mla.scale(p))
    assert float((out.float() - expected).norm() / expected.norm()) < 1e-3 and not made.counts.any()


def side_by_side(made: Launch, given: Any, units: int, block: int, factor: float) -> None:
    """What the programs of the sm_90 kernel leave: the units of a sequence go through its blocks side by side."""
    q, c, lengths, out = given
    sizes = [-(-n // block) for n in lengths.tolist()]
    line = [(b, i) for b, n in enumerate(sizes) for i in range(n)]
    parts, group = min(len(line), made.programs // units), q.shape[1] // units
    for part in range(parts):
        mine = line[len(line) * part // parts : len(line) * (part + 1) // parts]
        for b, u in {(b, u) for b, _ in mine for u in range(units)}:
            blocks = [i for sequence, i in mine if sequence == b]
            rows = c[b, blocks[0] * block : min((blocks[-1] + 1) * block, int(lengths[b]))].double()
            heads = slice(u * group, (u + 1) * group)
            scores = q[b, heads].double() @ rows.T * factor * sequences.LOG2E
            most = scores.amax(1)
            weights = torch.exp2(scores - most[:, None])
            total = weights @ rows[:, : out.shape[2]]
            if len(blocks) == sizes[b]:
                out[b, heads] = (total / weights.sum(1, keepdim=True)).to(out.dtype)
                continue
            slot = 2 * (part * units + u) + (blocks[0] == 0)
            made.parts[slot, :group] = total.float()
            made.stats[slot, 0, :group], made.stats[slot, 1, :group] = most.float(), weights.sum(1).float()


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("programs", [2, 7, 40])
def test_parts_that_went_side_by_side_are_combined(lengths: str, programs: int) -> None:
    p = MLA.params("tiny", {"lengths": lengths, "dtype": "float16"})
    given = mla.latents(p, DEVICE)
    made = Launch(programs // 2 * 2, 2 * len(given[0]), 64)
    given[3].fill_(float("nan"))
    side_by_side(made, given, 2, 16, mla.scale(p))
    combine(given[2], given[3], made, 2, 2, side=2)
    expected = mla.reference(p, given, mla.scale(p))
    assert float((given[3].float() - expected).norm() / expected.norm()) < 1e-3


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    "more",
    [{}, {"lengths": "4641,1730,64,1"}, {"kv_heads": "32"}, {"page": "16", "backend": "flash", "head_dim": "64"}],
    ids=str,
)
@pytest.mark.parametrize("name", [v.name for v in ATTENTION.variants])
def test_each_variant_is_proven_on_the_gpu(name: str, more: dict[str, str]) -> None:
    session = Session(
        ATTENTION,
        ATTENTION.variant(name),
        "cuda",
        ATTENTION.params("llama8b", {"batch": "4", "length": "1000", **more}),
    )
    proof = session.prove()
    assert proof.ok, proof.reason
    assert session.prove() == proof


@pytest.mark.gpu
@pytest.mark.parametrize("more", [{}, {"heads": "128"}, {"lengths": "4641,1730,64,1"}], ids=str)
@pytest.mark.parametrize("name", ["absorbed", "fused"])
def test_mla_is_proven_on_the_gpu(name: str, more: dict[str, str]) -> None:
    session = Session(MLA, MLA.variant(name), "cuda", MLA.params("default", {"batch": "4", "length": "1000", **more}))
    proof = session.prove()
    assert proof.ok, proof.reason


@pytest.mark.gpu
@pytest.mark.parametrize("more", [{}, {"heads": "8"}, {"heads": "32"}, {"heads": "128"}, {"heads": "64", "lengths": "4641,1730,64,1"}], ids=str)  # fmt: skip
def test_every_way_of_mla_is_attention_on_the_gpu(more: dict[str, str]) -> None:
    from moeprof.workloads.decode.mla_split_kv import latent, latent_configs

    p = MLA.params("default", {"batch": "4", "length": "1000", **more})
    q, c, lengths, out = given = mla.latents(p, "cuda")
    expected, wrong = mla.reference(p, given, mla.scale(p)), {}
    for config in latent_configs(q, out):
        out.fill_(float("nan"))
        try:
            launch, _ = latent(config, q, c, lengths, out, mla.scale(p))
            launch()
        except triton.runtime.errors.OutOfResources:
            continue
        error = float((out.float() - expected).norm() / expected.norm())
        if not error < 1e-2:
            wrong[str(config)] = error
    assert not wrong
