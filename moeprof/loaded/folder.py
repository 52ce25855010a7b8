"""``moeprof analyze DIR``: every trace of a folder, one after another or on Dask's workers, as one table."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moeprof
from moeprof.errors import CaptureError, ToolError
from moeprof.loaded.trace_row import TraceRow, TraceTask, failed, rows_of
from moeprof.trace import discover

LOCAL = "local"  # the address of worker processes on this machine
RESULTS = ".moeprof-analysis"
CONNECT_S = 20
# The environment of Dask's workers, without its MALLOC_TRIM_THRESHOLD_: that returns every array to the system at once, which
# doubles the time of a trace (docs/results).
NANNY = "distributed.nanny.pre-spawn-environ"
ONE_THREAD = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}

Progress = Callable[[int, int, str], None]  # finished traces, all traces, the label of the trace
Rows = tuple[TraceRow, ...]


@dataclass(frozen=True)
class FolderAnalysis:
    """The table: a row for each GPU of a trace, in the order of the files."""

    folder: str
    rows: Rows
    traces: int
    failed: int  # rows with an error
    schema_version: int = 1
    kind: str = "table"


def analyse_folder(
    folder: Path,
    dask: str | None = None,
    results: Path | None = None,
    classes: Path | None = None,
    progress: Progress = lambda number, of, label: None,
) -> FolderAnalysis:
    """All traces below the folder.

    Args:
        dask: a scheduler's address, or "local"; None: one after another in this process.
        results: where rows are cached, so that a stopped run continues; None: the folder's .moeprof-analysis.
        classes: a user's file of classes of communication.

    Raises:
        CaptureError: there is no trace in the folder, or the results cannot be written.
        ToolError: Dask is not installed, or no scheduler answers.
        KeyboardInterrupt: the message names what was finished.
    """
    cache = (results or folder / RESULTS).resolve()
    tasks = _tasks(folder, cache, classes.resolve() if classes else None)
    _make(cache)
    finished: dict[int, Rows] = {}
    try:
        for number, rows in _serial(tasks) if dask is None else _with_dask(tasks, dask):
            finished[number] = rows
            progress(len(finished), len(tasks), tasks[number].trace.label)
    except KeyboardInterrupt:
        message = f"interrupted; {len(finished)} of {len(tasks)} traces are done and kept in {cache}; the same command goes on"
        raise KeyboardInterrupt(message) from None
    rows = tuple(row for number in range(len(tasks)) for row in finished[number])
    return FolderAnalysis(folder.resolve().name, rows, len(tasks), sum(row.error is not None for row in rows))


def _tasks(folder: Path, results: Path, classes: Path | None) -> tuple[TraceTask, ...]:
    files = discover.below(folder)
    if not files:
        raise CaptureError(
            f"{folder} is not a capture and holds none, nor a trace",
            "make one with: moeprof capture kv_transfer; or give a folder of .sqlite, .nsys-rep or .json[.gz] files",
        )
    return tuple(TraceTask(file, results, classes, moeprof.__version__) for file in files)


def _make(results: Path) -> None:
    """Create the folder of results and check that it can be written, before any work."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    except OSError as error:
        raise CaptureError(
            f"results cannot be kept in {results}: {error.strerror}", "choose a folder: --results DIR"
        ) from error


def _serial(tasks: tuple[TraceTask, ...]) -> Iterator[tuple[int, Rows]]:
    return ((number, rows_of(task)) for number, task in enumerate(tasks))


def _with_dask(tasks: tuple[TraceTask, ...], address: str) -> Iterator[tuple[int, Rows]]:
    """On Dask's workers, in the order in which they finish. A worker that dies gives a row with an error."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolError("--dask needs Dask, which is not installed", "pip install 'moeprof[dask]', or leave out --dask")
    from distributed import KilledWorker, as_completed

    with _client(address, len(tasks)) as client:
        futures = {client.submit(rows_of, task, pure=False): number for number, task in enumerate(tasks)}
        suspects = []
        for future in as_completed(futures):
            try:
                rows = future.result()
            except KilledWorker:
                suspects.append(futures[future])
                continue
            except Exception as error:  # any failure on a worker is this trace's row
                rows = _lost(tasks[futures[future]], error)
            yield futures[future], rows
        for (
            number
        ) in suspects:  # one at a time: Dask also blames tasks that waited on a worker that another trace killed
            yield number, _alone(client, tasks[number])


def _alone(client: Any, task: TraceTask) -> Rows:
    try:
        rows: Rows = client.submit(rows_of, task, pure=False).result()
    except Exception as error:  # as above
        return _lost(task, error)
    return rows


def _lost(task: TraceTask, error: Exception) -> Rows:
    return failed(task, f"the Dask worker failed: {type(error).__name__}: {error}")


@contextmanager
def _client(address: str, traces: int) -> Iterator[Any]:
    """A client of the scheduler. The local cluster has one process per core, no dashboard and no memory limit."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    if address == LOCAL:
        workers = min(CPU_COUNT, traces)
        options = {"threads_per_worker": 1, "dashboard_address": None, "memory_limit": None}
        with (
            dask.config.set({NANNY: ONE_THREAD}),
            LocalCluster(n_workers=workers, processes=True, **options) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ToolError(f"no Dask scheduler answers at {address}: {error}", "start one: dask scheduler") from error
    with client:
        yield client
