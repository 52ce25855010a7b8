"""A folder of traces on Dask's workers: the same table, little that travels, workers that die; without Dask a clear error."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from builders import trace_folder
from builders.sample_captures import Ran
from builders.trace_folder import FILES
from fakes import command_line
from recorded import recordings

import moeprof
from moeprof.loaded import folder as spreading
from moeprof.loaded import trace_row
from moeprof.loaded.trace_row import TraceRow, TraceTask
from moeprof.trace.discover import TraceFile

Run = Callable[..., Ran]

folder = trace_folder.folder


def test_without_dask_the_error_says_how_to_get_it(command: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else real(name))
    monkeypatch.setitem(sys.modules, "distributed", None)
    ran = command("analyze", folder, "--dask")
    assert ran.code == 4 and "--dask needs Dask" in ran.err and "pip install 'moeprof[dask]'" in ran.err
    assert command("analyze", folder).code == 0


def test_nothing_of_the_events_travels(folder: Path, tmp_path: Path) -> None:
    unit = TraceTask(TraceFile(folder / FILES[2], FILES[2]), tmp_path, None, moeprof.__version__)
    rows = trace_row.rows_of(unit)
    assert len(pickle.dumps((unit, rows))) < 3000 < len(recordings.trace("sync-item-faulty").calls) * 8
    plain = (str, int, type(None))
    for value in (getattr(row, f.name) for row in rows for f in fields(row)):
        assert type(value) in plain or (type(value) is tuple and all(type(v) is str for v in value)), value
    (other,) = trace_row.rows_of(replace(unit, moeprof="0.0.9"))
    assert other.error == f"this worker has moeprof {moeprof.__version__}, the command has 0.0.9"


def test_rows_stand_in_order_however_they_finish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = spreading.analyse_folder(folder).rows
    monkeypatch.setattr(
        spreading, "_serial", lambda units: ((n, trace_row.rows_of(units[n])) for n in (4, 0, 6, 1, 5, 3, 2))
    )
    assert spreading.analyse_folder(folder).rows == expected


def test_dask_on_this_machine_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    words = ("analyze", str(folder), "--json", "--results")
    fresh = [sys.executable, "-P", "-m", "moeprof", *words, "one", "--dask"]
    both = (
        subprocess.run(fresh, cwd=tmp_path, capture_output=True, text=True, check=False),
        command_line.moeprof(*words, "two", cwd=tmp_path),
    )
    for ran in both:
        assert ran.returncode == 0, ran.stderr
        assert sum(f" of 7: {name}" in ran.stderr for name in FILES) == 3
    said = [ran.stdout for ran in both]
    assert said[0] == said[1] and json.loads(said[0])["failed"] == 1
    kept = [sorted((f.name, f.read_bytes()) for f in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert kept[0] == kept[1] and len(kept[0]) == 6


@pytest.fixture
def scheduler() -> Iterator[str]:
    """The address of a cluster with one worker process, which gives up at a worker's first death."""
    dask = pytest.importorskip("dask", reason="Dask is not installed")
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


def dies_at_one(unit: TraceTask) -> tuple[TraceRow, ...]:
    if unit.trace.label == FILES[0]:
        os._exit(3)
    return trace_row.rows_of(unit)


@pytest.mark.filterwarnings("default")
def test_a_given_cluster_and_a_worker_that_dies(
    command: Run, folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = command("analyze", folder, "--json", "--results", "serial")
    monkeypatch.setattr("distributed.LocalCluster", None)  # none of its own
    given = command("analyze", folder, "--json", "--results", "given", "--dask", scheduler)
    assert given.code == 0 and given.out == serial.out
    assert len(list((folder.parent / "given").iterdir())) == 6  # the worker, not this process, wrote them
    monkeypatch.setattr(spreading, "rows_of", dies_at_one)
    rows = spreading.analyse_folder(folder, dask=scheduler, results=folder.parent / "third").rows
    (dead,) = [row for row in rows if row.file == FILES[0]]
    assert "the Dask worker failed: KilledWorker" in (dead.error or "") and dead.span_ns is None
    assert len(rows) == 7 and sum(row.error is None for row in rows) == 5


@pytest.mark.filterwarnings("default")
def test_local_workers_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's MALLOC_TRIM_THRESHOLD_ doubles the time of a trace."""
    pytest.importorskip("distributed")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # another cluster of this process may have left it
    with spreading._client(spreading.LOCAL, 2) as client:
        found = client.run(lambda: (os.environ.get("MALLOC_TRIM_THRESHOLD_"), os.environ.get("OMP_NUM_THREADS")))
    assert set(found.values()) == {(None, "1")}
