"""The captures that ship: each is whole, small, redacted, and says what it was recorded to show."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pages import page, told

from moeprof import resources
from moeprof.compare import variants
from moeprof.loaded import capture
from moeprof.loaded.trace import analysis_of
from moeprof.ranks import groups
from moeprof.report import rank_tables
from moeprof.storage import json as codec
from moeprof.storage import manifest
from moeprof.trace import open_trace

SAMPLES = sorted(p for p in (resources.folder("reports") / "samples").iterdir() if p.is_dir())
PRIVATE = re.compile(r"/home/|/root/|/Users/|[A-Za-z_]*(TOKEN|SECRET|PASSWORD)[A-Za-z_]*=")


def contrast(name: str) -> Any:
    (folder,) = (p for p in SAMPLES if p.name == name)
    return variants.compare(capture.load(folder))


@pytest.mark.parametrize("folder", SAMPLES, ids=lambda p: p.name)
def test_a_sample_is_whole_small_and_what_is_expected(folder: Path) -> None:
    assert manifest.read(folder).complete
    assert sum(p.stat().st_size for p in folder.rglob("*")) < 3_000_000
    found = json.loads(codec.dumps(page(capture.load(folder)).data))
    assert found == json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", SAMPLES, ids=lambda p: p.name)
def test_a_sample_names_no_place_of_the_machine_that_recorded_it(folder: Path) -> None:
    assert not PRIVATE.search((folder / "manifest.json").read_text(encoding="utf-8"))
    for path in folder.rglob("*.sqlite"):
        with sqlite3.connect(path) as base:
            (tables,) = zip(*base.execute("SELECT name FROM sqlite_master WHERE type = 'table'"), strict=True)
            assert not {"TARGET_INFO_SYSTEM_ENV", "META_DATA_CAPTURE"} & set(tables)
            found = [value for (value,) in base.execute("SELECT value FROM StringIds") if PRIVATE.search(value or "")]
            assert not found, path


def test_the_router_sample_shows_the_ladder() -> None:
    found = contrast("router")
    times = {row.name: row.time_ns.value for row in found.rows}
    assert times["dense"] > 3 * times["vectorized"] and times["vectorized"] > times["grouped"] > times["fused"]
    assert {row.name for row in found.rows if row.verdict and row.verdict.word == "FASTER"} == set(times) - {"dense"}
    assert found.row("fused").launch.graph_launches == 1 and found.row("fused").launch.kernels_in_graphs == 6


def test_the_sample_of_two_gpus_shows_that_hidden_is_not_all_won() -> None:
    """NCCL's kernels hide, and slow what they hide under; copy engines hide as much and win more."""
    found = contrast("expert_parallel")
    words = {row.name: row.verdict.word for row in found.rows if row.verdict}
    assert words == {"overlap": "FASTER", "graph": "FASTER", "peer_copy": "FASTER"}
    (folder,) = (p for p in SAMPLES if p.name == "expert_parallel")
    shares, rates = {}, {}
    for group in groups.groups(folder):
        analysis, _ = groups.analyse_group(group)
        parts = [part for rank in analysis.ranks for window in rank.windows for part in window.communication]
        shares[group.variant] = sum(p.hidden_ns for p in parts) / sum(p.hidden_ns + p.exposed_ns for p in parts)
        rates[group.variant] = min(rank_tables.declared_gb_per_s(analysis).values()) / (
            analysis.link_ceiling_gb_per_s or 0
        )
        for rank in analysis.ranks:
            assert len(rank.windows) == 8
            assert all(sum(asdict(window.ledger).values()) == window.span_ns for window in rank.windows), (
                "exact on every rank"
            )
    assert shares["baseline"] == 0 and min(shares[name] for name in ("overlap", "graph", "peer_copy")) > 0.9
    assert rates["baseline"] > 0.9 and rates["peer_copy"] > 0.95 and rates["overlap"] < 0.5
    with open_trace(folder / "peer_copy" / "trace.sqlite") as trace:
        ids = {finding.id for finding in analysis_of(trace).findings}
    assert "same-stream-copy" not in ids, "signals between copies do not make theirs the stream of the kernels"
    times = {row.name: row.launch.kernels and row.time_ns.value for row in found.rows}
    assert times["baseline"] > 1.04 * times["overlap"] and times["overlap"] > times["graph"] > 1.05 * times["peer_copy"]


def test_the_attention_sample_shows_one_pass_over_the_cache_and_tells_no_tale_of_bytes() -> None:
    found = contrast("decode_attention")
    split, naive = found.row("split_kv"), found.row("naive")
    assert split.limit_ratio > 0.93 and naive.limit_ratio < 0.06
    assert naive.launch.kernels == 160 and split.launch.kernels == 1
    most = found.counted.moved
    assert most is not None and most.label != "DRAM bytes", "the naive variant's other kernels are not counted"
    (folder,) = (p for p in SAMPLES if p.name == "decode_attention")
    words = told(capture.load(folder))
    assert not any("does not compute while it copies" in line for line in (*words.reasons, *words.closing))
