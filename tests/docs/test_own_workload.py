"""The tutorial of a workload of one's own, with its file and its commands as they stand in docs/tutorial/own_workload.md."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest
from paths import ROOT

from moeprof.storage import manifest
from moeprof.workload import find

DOCUMENT = ROOT / "docs" / "tutorial" / "own_workload.md"
CAPTURE, TESTS, GATE = (b for b in documents.blocks(DOCUMENT) if b.kind == "run")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tutorial's file, captured as the tutorial says."""
    pytest.importorskip("torch", reason="torch is not installed")
    folder = tmp_path_factory.mktemp("project")
    documents.write_files(DOCUMENT, folder)
    documents.run(CAPTURE, folder)
    return folder


def test_both_variants_are_proven_timed_and_traced_and_the_page_is_there(project: Path) -> None:
    found = manifest.read(project / "base")
    assert [(v.name, v.status, v.proof and v.proof.ok) for v in found.variants] == [
        ("host", "ok", True),
        ("batch", "ok", True),
    ]
    assert all(v.times_ns and v.part("trace") for v in found.variants)
    assert "sampling" in (project / "sampling.html").read_text()


def test_the_proof_fails_each_planted_fault_and_says_why(project: Path) -> None:
    sampling = find.load(str(project / "sampling.py"))
    params = dict(sampling.presets["tiny"])
    said = {name: sampling.prove(params, "cpu", build(params, "cpu")) for name, build in sampling.faults.items()}
    assert not any(proof.ok for proof in said.values())
    assert "another token was due" in said["no-top-p"].reason or "not in the nucleus" in said["no-top-p"].reason
    assert said["last-row-forgotten"].reason == "1 tokens are not in the nucleus, or were not written"
    for variant in sampling.variants:
        for seed in range(4):
            proof = sampling.prove({**params, "seed": seed}, "cpu", variant.build({**params, "seed": seed}, "cpu"))
            assert proof.ok, (variant.name, seed, proof)


def test_a_fault_in_a_variant_ends_the_capture_as_the_tutorial_says(project: Path) -> None:
    text = (project / "sampling.py").read_text()
    (project / "faulty.py").write_text(text.replace('on the device", build_batch)', 'on the device", no_top_p)'))
    command = "moeprof capture ./faulty.py --device cpu --tools none --variants batch --rounds 1 -o faulty"
    said = documents.run(documents.Block("run", "", f"set +e; {command}; test $? -eq 5"), project)
    assert "batch" in said and ("another token was due" in said or "not in the nucleus" in said), said
    assert not (project / "faulty").exists()


def test_the_tests_of_the_file_run_through_the_plugin(project: Path) -> None:
    said = documents.run(TESTS, project)
    assert "1 passed, 1 skipped" in said or "2 passed" in said, said
    assert "sync_calls" in (project / "tests.html").read_text()


def test_the_gate_compares_two_captures(project: Path) -> None:
    if not documents.has_command(GATE.needs):
        pytest.skip(f"there is no command moeprof {GATE.needs} yet")
    assert "step_time" in documents.run(GATE, project)
