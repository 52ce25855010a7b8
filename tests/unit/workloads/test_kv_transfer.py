"""kv_transfer on the CPU, and on a GPU where there is one: every variant proven, every planted fault caught."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from moeprof.errors import UsageError  # noqa: E402
from moeprof.worker.built_variant import Session, machine  # noqa: E402
from moeprof.workload.find import load  # noqa: E402
from moeprof.workload.model import Machine  # noqa: E402

WORKLOAD = load("kv_transfer")
SMALL = {"layers": "5", "tokens": "96", "kv_width": "64", "hidden": "32", "width": "16", "link": "host"}
ON_GPU = {"layers": "6", "tokens": "2048", "hidden": "1024", "kv_width": "1024", "width": "4096", "dtype": "bfloat16"}
CPU = Machine(cuda=False, gpus=0)


@pytest.fixture
def params() -> dict[str, Any]:
    return WORKLOAD.params("tiny", SMALL)


@pytest.fixture
def gpu_params() -> dict[str, Any]:
    return WORKLOAD.params("default", {**ON_GPU, "link": "host"})


@pytest.mark.parametrize("name", ["baseline", "overlap"])
def test_each_variant_is_proven_on_the_cpu(params: dict[str, Any], name: str) -> None:
    session = Session(WORKLOAD, WORKLOAD.variant(name), "cpu", params)
    for _ in range(3):
        proof = session.prove()
        assert proof.ok, proof.reason
        assert proof.checked == "5 of 5 layers, every element"
        assert proof.error is not None and proof.error < 1e-5


@pytest.mark.parametrize("fault", sorted(WORKLOAD.faults))
def test_each_planted_fault_fails_the_proof_on_the_cpu(params: dict[str, Any], fault: str) -> None:
    proof = WORKLOAD.prove(params, "cpu", WORKLOAD.faults[fault](params, "cpu"))
    assert not proof.ok
    assert "differ from the reference" in proof.reason


def test_one_wrong_element_fails_the_proof(params: dict[str, Any]) -> None:
    step = WORKLOAD.variant("baseline").build(params, "cpu")

    def run() -> None:
        step.run()
        step.output()[3, 40, 7] += 0.3 * step.output()[3].square().mean().sqrt()  # too little for the norm of the layer

    proof = WORKLOAD.prove(params, "cpu", replace(step, run=run))
    assert not proof.ok
    assert "[3]" in proof.reason


def test_a_right_answer_of_an_earlier_run_does_not_pass(params: dict[str, Any]) -> None:
    step = WORKLOAD.variant("baseline").build(params, "cpu")
    step.run()
    assert not WORKLOAD.prove(params, "cpu", replace(step, run=lambda: None)).ok


def test_an_unwritten_layer_fails_the_proof(params: dict[str, Any]) -> None:
    step = WORKLOAD.variant("baseline").build(params, "cpu")

    def run() -> None:
        step.run()
        step.output()[2].fill_(float("nan"))

    proof = WORKLOAD.prove(params, "cpu", replace(step, run=run))
    assert not proof.ok and proof.error is None


def test_variants_move_the_same_bytes_and_do_the_same_work(params: dict[str, Any]) -> None:
    steps = [WORKLOAD.variant(name).build(params, "cpu") for name in ("baseline", "overlap")]
    assert {s.bytes_moved for s in steps} == {5 * 96 * 64 * 4}
    assert {s.flops for s in steps} == {2 * 5 * 96 * 16 * (32 + 64)}
    for step in steps:
        step.run()
    assert torch.equal(steps[0].output(), steps[1].output())


def test_calibration_chooses_a_width_and_keeps_one_that_is_given() -> None:
    small = WORKLOAD.params("tiny", {"tokens": "256", "kv_width": "64", "layers": "2"})
    resolved = WORKLOAD.resolve(small, CPU)
    assert resolved["link"] == "host"
    assert resolved["width"] >= 8 and resolved["width"] % 8 == 0
    assert WORKLOAD.resolve({**small, "width": 24}, CPU)["width"] == 24


@pytest.mark.parametrize(("link", "words"), [("usb", "is not a link"), ("peer", "needs two GPUs")])
def test_a_link_that_is_not_there_is_refused(link: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        WORKLOAD.resolve(WORKLOAD.params("tiny", {"link": link}), CPU)


def test_auto_is_the_peer_where_two_gpus_are_linked() -> None:
    linked = Machine(cuda=True, gpus=2, linked=True)
    assert WORKLOAD.resolve(WORKLOAD.params("default", {"width": "64"}), linked)["link"] == "peer"


def test_a_variant_runs_as_a_plain_script() -> None:
    words = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-P",
        "-m",
        "moeprof.workloads.kv_transfer",
        "--device",
        "cpu",
        "--preset",
        "tiny",
        "--seconds",
        "0.01",
    ]
    ran = subprocess.run([*command, "--variant", "overlap", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "kv_transfer/overlap on cpu" in ran.stdout and "5 of 5 layers" in ran.stdout
    skipped = subprocess.run([*command, "--variant", "graph"], capture_output=True, text=True, check=False)
    assert "kv_transfer/graph SKIPPED: needs a CUDA GPU" in skipped.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("link", ["host", "device"])
@pytest.mark.parametrize("name", ["baseline", "overlap", "graph"])
def test_each_variant_is_proven_on_the_gpu(gpu_params: dict[str, Any], name: str, link: str) -> None:
    session = Session(WORKLOAD, WORKLOAD.variant(name), "cuda", {**gpu_params, "link": link})
    session.warm_up()
    for _ in range(3):
        proof = session.prove()
        assert proof.ok, proof.reason


@pytest.mark.gpu
@pytest.mark.parametrize("fault", sorted(WORKLOAD.faults))
def test_each_planted_fault_fails_the_proof_on_the_gpu(gpu_params: dict[str, Any], fault: str) -> None:
    proof = WORKLOAD.prove(gpu_params, "cuda", WORKLOAD.faults[fault](gpu_params, "cuda"))
    assert not proof.ok


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["baseline", "overlap", "graph"])
def test_each_variant_is_proven_over_nvlink(gpu_params: dict[str, Any], name: str) -> None:
    if not machine("cuda").linked:
        pytest.skip("needs two GPUs that reach each other's memory")
    session = Session(WORKLOAD, WORKLOAD.variant(name), "cuda", {**gpu_params, "link": "peer"})
    session.warm_up()
    proof = session.prove()
    assert proof.ok, proof.reason
