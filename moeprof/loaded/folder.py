"""``moeprof analyze DIR``: every trace of a folder, one after the other or on Dask's workers, reduced to one table."""

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
from moeprof.loaded.rows_of_trace import Unit, failed, rows_of
from moeprof.loaded.trace_row import TraceRow
from moeprof.trace import discover

LOCAL = "local"  # the address that stands for worker processes on this machine
RESULTS = ".moeprof-analysis"
CONNECT_S = 20
# What Dask puts into the environment of its workers, without its MALLOC_TRIM_THRESHOLD_: with that every array goes back to the
# system at once and is faulted in anew, which doubles the time of a trace (docs/results).
NANNY = "distributed.nanny.pre-spawn-environ"
ONE_THREAD = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}

Done = Callable[[int, int, str], None]  # finished, all, the label of the trace
Rows = tuple[TraceRow, ...]


@dataclass(frozen=True)
class Spread:
    """The table: a row for each GPU of a trace, in the order of the files, whatever order they were finished in."""

    folder: str
    rows: Rows
    traces: int
    failed: int  # traces that gave an error
    schema_version: int = 1
    kind: str = "table"


def analyse_folder(
    folder: Path,
    dask: str | None = None,
    results: Path | None = None,
    classes: Path | None = None,
    done: Done = lambda number, of, label: None,
) -> Spread:
    """All traces below the folder. ``dask``: a scheduler's address, or "local"; None: one after the other, here.

    Rows are kept in ``results`` (default: the folder's .moeprof-analysis), so that a run that was stopped goes on.

    Raises:
        CaptureError: there is no trace in the folder, or results cannot be kept.
        ToolError: Dask is not installed, or no scheduler answers.
        KeyboardInterrupt: says what was kept.
    """
    kept = (results or folder / RESULTS).resolve()
    units = _units(folder, kept, classes.resolve() if classes else None)
    _make(kept)
    found: dict[int, Rows] = {}
    try:
        for number, rows in _serial(units) if dask is None else _spread(units, dask):
            found[number] = rows
            done(len(found), len(units), units[number].trace.label)
    except KeyboardInterrupt:
        said = f"interrupted; {len(found)} of {len(units)} traces are done and kept in {kept}; the same command goes on"
        raise KeyboardInterrupt(said) from None
    rows = tuple(row for number in range(len(units)) for row in found[number])
    return Spread(folder.resolve().name, rows, len(units), sum(row.error is not None for row in rows))


def _units(folder: Path, results: Path, classes: Path | None) -> tuple[Unit, ...]:
    found = discover.below(folder)
    if not found:
        raise CaptureError(
            f"{folder} is not a capture and holds none, nor a trace",
            "make one with: moeprof capture kv_transfer; or give a folder of .sqlite, .nsys-rep or .json[.gz] files",
        )
    return tuple(Unit(trace, results, classes, moeprof.__version__) for trace in found)


def _make(results: Path) -> None:
    """The folder of results: that it can be written is known before any work is done."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    except OSError as error:
        raise CaptureError(
            f"results cannot be kept in {results}: {error.strerror}", "say where: --results DIR"
        ) from error


def _serial(units: tuple[Unit, ...]) -> Iterator[tuple[int, Rows]]:
    return ((number, rows_of(unit)) for number, unit in enumerate(units))


def _spread(units: tuple[Unit, ...], address: str) -> Iterator[tuple[int, Rows]]:
    """On Dask's workers, in the order in which they finish. A worker that dies is a row with an error."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolError("--dask needs Dask, which is not installed", "pip install 'moeprof[dask]', or leave out --dask")
    from distributed import KilledWorker, as_completed

    with _client(address, len(units)) as client:
        futures = {client.submit(rows_of, unit, pure=False): number for number, unit in enumerate(units)}
        blamed = []
        for future in as_completed(futures):
            try:
                rows = future.result()
            except KilledWorker:
                blamed.append(futures[future])
                continue
            except Exception as error:  # whatever went wrong out there is this trace's row
                rows = _lost(units[futures[future]], error)
            yield futures[future], rows
        for number in blamed:  # one at a time: Dask also blames what waited on the worker that another trace killed
            yield number, _alone(client, units[number])


def _alone(client: Any, unit: Unit) -> Rows:
    try:
        rows: Rows = client.submit(rows_of, unit, pure=False).result()
    except Exception as error:  # as above
        return _lost(unit, error)
    return rows


def _lost(unit: Unit, error: Exception) -> Rows:
    return failed(unit, f"the Dask worker failed: {type(error).__name__}: {error}")


@contextmanager
def _client(address: str, traces: int) -> Iterator[Any]:
    """A client of the scheduler. The local cluster: a process a core, no dashboard, no limit of memory that is not serial's."""
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
