"""expert_parallel in 1, 2 and 4 ranks over gloo, and over NCCL where there are GPUs: proven, and every planted fault caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available():
    pytest.skip("torch has no distributed here", allow_module_level=True)

import rank_processes  # noqa: E402
from fakes.forked import WITH_TORCH  # noqa: E402
from rank_processes import SMALL  # noqa: E402

from moeprof.workload.find import load  # noqa: E402
from moeprof.workloads.expert_parallel.faults import ON_PEERS, TWO_RANKS  # noqa: E402

WORKLOAD = load("expert_parallel")
ON_CPU = [name for name in sorted(WORKLOAD.faults) if name not in ON_PEERS]

VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {"name": "baseline"},
    "overlap": {"name": "overlap", "times": 3},
    "overlap of 5 chunks": {"name": "overlap", "set": {"chunks": 5}},
    "overlap of 1 chunk": {"name": "overlap", "set": {"chunks": 1}},
    "overlap under zipf": {"name": "overlap", "set": {"load": "zipf", "topk": 3}},
    "overlap, balanced": {"name": "overlap", "set": {"load": "balanced"}},
    "baseline, deepseek": {"name": "baseline", "set": {"routing": "deepseek", "scale": 2.5}},
    "overlap, one expert a token": {"name": "overlap", "set": {"topk": 1}},
    "overlap of 4 experts": {"name": "overlap", "set": {"experts": 4}},  # one per rank of four
    "overlap, double": {"name": "overlap", "set": {"dtype": "float64"}},
}


def cases(faults: list[str]) -> dict[str, dict[str, Any]]:
    found = {
        name: {"do": "variant", **case, "set": {**SMALL, **case.get("set", {})}} for name, case in VARIANTS.items()
    }
    return found | {f"fault {name}": {"do": "fault", "name": name, "set": SMALL} for name in faults}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    more = {
        "wrong element": {"do": "altered", "rank": 1, "set": SMALL},
        "no run": {"do": "altered", "rank": -1, "set": SMALL},
        "puts": {"do": "puts", "set": SMALL, "folder": "a", "late": 0.02},
        "puts under zipf": {"do": "puts", "set": {**SMALL, "load": "zipf", "chunks": 3}, "folder": "b"},
        "deaf puts": {"do": "puts", "set": SMALL, "folder": "c", "late": 0.3, "deaf": True},
    }
    return rank_processes.run(2, "cpu", tmp_path_factory.mktemp("two"), cases(ON_CPU) | more)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    more = {"puts": {"do": "puts", "set": {**SMALL, "load": "zipf"}, "folder": "a", "late": 0.02}}
    return rank_processes.run(4, "cpu", tmp_path_factory.mktemp("four"), cases(ON_CPU) | more)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return rank_processes.run(
        1, "cpu", tmp_path_factory.mktemp("one"), cases([n for n in ON_CPU if n not in TWO_RANKS])
    )


@pytest.fixture(params=["one", "two", "four"])
def found(request: pytest.FixtureRequest) -> dict[str, list[dict[str, Any]]]:
    """What the ranks found, of one, two and four of them."""
    result: dict[str, list[dict[str, Any]]] = request.getfixturevalue(request.param)
    return result


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_rank_proves_each_variant(found: dict[str, list[dict[str, Any]]], name: str) -> None:
    assert len(found[name]) == len(found["baseline"]) in (1, 2, 4)
    for proof in found[name]:
        assert proof["ok"], proof["reason"]
        assert proof["checked"].startswith("48 of 48 tokens, every element, twice the same")
        assert proof["error"] < 2e-6


@pytest.mark.parametrize("name", ON_CPU)
def test_each_planted_fault_fails_the_proof(found: dict[str, list[dict[str, Any]]], name: str) -> None:
    if f"fault {name}" not in found:
        pytest.skip("cannot occur on one rank")
    assert not all(proof["ok"] for proof in found[f"fault {name}"])


def test_the_fault_of_a_sender_shows_on_every_rank(two: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("wrong-rank", "dropped-expert", "missing-event"):
        assert len(two[f"fault {name}"]) == 2
        for proof in two[f"fault {name}"]:
            assert "differs from the reference" in proof["reason"], name


def test_one_wrong_element_fails_that_rank_alone_and_no_rank_hangs(two: dict[str, list[dict[str, Any]]]) -> None:
    assert [proof["ok"] for proof in two["wrong element"]] == [True, False]
    assert "[3]" in two["wrong element"][1]["reason"]


def test_a_right_answer_of_an_earlier_run_does_not_pass(two: dict[str, list[dict[str, Any]]]) -> None:
    assert len(two["no run"]) == 2
    for proof in two["no run"]:
        assert not proof["ok"] and "differs from the reference" in proof["reason"]


def test_puts_into_the_memory_of_others_are_proven_over_files(two: Any, four: Any) -> None:
    assert [len(ranks) for ranks in (two["puts"], two["puts under zipf"], four["puts"])] == [2, 2, 4]
    for proof in (*two["puts"], *two["puts under zipf"], *four["puts"]):
        assert proof["ok"], proof["reason"]


def test_rows_that_are_read_before_they_are_there_fail_the_proof(two: dict[str, list[dict[str, Any]]]) -> None:
    """Rank 0 computes what rank 1's rows left behind of the last run: its results are wrong, and rank 1 gets them."""
    assert [proof["ok"] for proof in two["deaf puts"]] == [True, False]


def test_the_facts_add_up_over_the_ranks(four: dict[str, list[dict[str, Any]]]) -> None:
    every = [proof["facts"] for proof in four["overlap under zipf"]]
    assigned, row_mb = 4 * 48 * 3, 32 * 4 / 1e6
    assert sum(fact["rows of this rank"] for fact in every) == assigned == sum(every[0]["tokens of each expert"])
    assert [fact["rows of this rank"] for fact in every] == every[0]["rows of each rank"]
    sent = sum(fact["sent to other ranks, rows (MB)"] for fact in every)
    assert sent == pytest.approx(sum(fact["received from other ranks, rows (MB)"] for fact in every))
    assert 0 < sent < assigned * row_mb
    for fact, proof in zip(every, four["overlap under zipf"], strict=True):
        assert fact["rows of a rank, max / mean"] > 1 and fact["dropped assignments (%)"] == 0
        both = fact["sent to other ranks, rows (MB)"] + fact["received from other ranks, rows (MB)"]
        assert fact["sent to other ranks, rows and results (MB)"] == pytest.approx(both)
        assert proof["bytes_moved"] == pytest.approx(2e6 * sent / 4, abs=1)


def test_baseline_tells_the_speed_of_its_exchange(found: dict[str, list[dict[str, Any]]]) -> None:
    assert len(found["baseline"]) in (1, 2, 4)
    for proof in found["baseline"]:
        assert proof["facts"]["dispatch alone (GB/s, bus)"] > 0


def test_a_backend_that_registers_nothing_has_plain_memory(four: dict[str, list[dict[str, Any]]]) -> None:
    assert {proof["facts"]["buffers"] for proof in four["overlap under zipf"]} == {"plain memory"}


# ---- as a plain script


PLAIN = ("-m", "moeprof.workloads.expert_parallel", "--device", "cpu", "--preset", "tiny", "--seconds", "0.02")
PLAIN_SMALL = tuple(word for key, value in SMALL.items() for word in ("--set", f"{key}={value}"))


def script(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *PLAIN, *PLAIN_SMALL, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    launcher = ("-P", "-m", "torch.distributed.run", "--nproc-per-node", "2")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return WITH_TORCH.run_python((*launcher, *words), Path.cwd(), environment, timeout_s=180)


def test_two_ranks_run_under_torchrun_and_one_of_them_prints() -> None:
    ran = torchrun(*PLAIN, *PLAIN_SMALL, "--variant", "overlap")
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    assert line.startswith("expert_parallel/overlap on cpu, 2 ranks:") and "48 of 48 tokens" in line


def test_alone_it_is_a_group_of_one_rank() -> None:
    ran = script()
    assert ran.returncode == 0 and "on cpu, 1 rank:" in ran.stdout, ran.stderr
    skipped = script("--variant", "graph")
    assert skipped.returncode == 0 and "expert_parallel/graph SKIPPED: needs a CUDA GPU" in skipped.stdout


def test_the_benchmark_sets_each_variant_beside_its_parts(tmp_path: Path) -> None:
    benchmark = ROOT / "scripts" / "benchmark_expert_parallel.py"
    small = ",".join(f"{key}={value}" for key, value in SMALL.items())
    ran = torchrun(
        str(benchmark), f"tiny:{small}", "--device", "cpu", "--rounds", "1", "--json", str(tmp_path / "found.json")
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (rows,) = found["cases"].values()
    ms = {row["entry"]: row["ms"] for row in rows}
    assert list(ms)[:2] == ["baseline", "overlap"] and {"compute", "communication in chunks"} < set(ms)
    hidden = {row["entry"]: row["hidden_share"] for row in rows}
    expected = (ms["compute"] + ms["communication"] - ms["overlap"]) / ms["communication"]
    assert hidden["overlap"] == pytest.approx(expected) and hidden["compute"] is None
    assert found["ranks"] == 2 and found["links"][0]["all_to_all_gb_per_s"] > 0
    assert "graph: SKIPPED: needs a CUDA GPU" in ran.stdout


# ---- on GPUs


HALF = {"tokens": 512, "hidden": 256, "inner": 256, "experts": 16, "topk": 4, "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    count = min(2, torch.cuda.device_count())
    found: dict[str, dict[str, Any]] = {
        name: {"do": "variant", "name": name, "times": 3, "set": HALF} for name in ("baseline", "overlap", "graph")
    }
    found["graph of 4 chunks"] = {"do": "variant", "name": "graph", "set": {**HALF, "chunks": 4, "load": "zipf"}}
    found["graph, single precision"] = {"do": "variant", "name": "graph", "set": SMALL}
    linked = count == 1 or torch.cuda.can_device_access_peer(0, 1)
    if linked:
        found["peer_copy"] = {"do": "variant", "name": "peer_copy", "times": 3, "set": HALF}
        found["peer_copy under zipf"] = {"do": "variant", "name": "peer_copy", "set": {**HALF, "load": "zipf"}}
    names = [n for n in WORKLOAD.faults if (count > 1 or n not in TWO_RANKS) and (linked or n not in ON_PEERS)]
    found |= {f"fault {name}": {"do": "fault", "name": name, "set": HALF} for name in names}
    return rank_processes.run(count, "cuda", tmp_path_factory.mktemp("gpus"), found)


GPU_CASES = (
    "baseline", "overlap", "graph", "graph of 4 chunks", "graph, single precision", "peer_copy", "peer_copy under zipf",
)  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU_CASES)
def test_every_gpu_proves_each_variant(gpus: dict[str, list[dict[str, Any]]], name: str) -> None:
    if name not in gpus:
        assert name.startswith("peer_copy"), "only these may be missing"
        pytest.skip("needs GPUs that reach each other's memory")
    for proof in gpus[name]:
        assert proof["ok"], proof["reason"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(WORKLOAD.faults))
def test_each_planted_fault_fails_the_proof_on_gpus(gpus: dict[str, list[dict[str, Any]]], name: str) -> None:
    if f"fault {name}" not in gpus:
        assert name in TWO_RANKS or name in ON_PEERS, "only these may be missing"
        pytest.skip("needs two linked GPUs")
    assert not all(proof["ok"] for proof in gpus[f"fault {name}"])
