"""``moeprof analyze DIR``: every trace of a folder, one after the other or on Dask's workers, reduced to one table."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.errors import ToolError, UsageError
from moeprof.many import Unit, rows_of, units
from moeprof.metrics.tracerow import TraceRow

LOCAL = "local"  # the address that stands for a cluster of this machine's cores
CACHE = ".moeprof-analysis"
CONNECT_S = 20

Done = Callable[[int, int], None]  # finished, all


@dataclass(frozen=True)
class Spread:
    """The table: one row a rank of a trace, in order of paths, whatever order they were finished in."""

    folder: str
    rows: tuple[TraceRow, ...]
    traces: int
    failed: int  # traces that gave an error
    schema_version: int = 1
    kind: str = "table"


def analyse_folder(
    folder: Path,
    dask: str | None = None,
    cache: Path | None = None,
    classes: Path | None = None,
    done: Done = lambda n, of: None,
) -> Spread:
    """All traces below the folder. ``dask``: a scheduler's address, or "local"; None: one after the other, here.

    Results are remembered in ``cache`` (default: the folder's .moeprof-analysis): a run that was stopped goes on.

    Raises:
        UsageError: there is no trace in the folder.
        ToolError: Dask is not installed, or no scheduler answers.
    """
    found = units(folder, classes, cache or folder / CACHE)
    if not found:
        raise UsageError(
            f"{folder} holds no capture and no trace", "give a folder of .sqlite, .nsys-rep or .json[.gz] files"
        )
    results: dict[int, tuple[TraceRow, ...]] = {}
    for number, rows in _serial(found) if dask is None else _spread(found, dask):
        results[number] = rows
        done(len(results), len(found))
    rows = tuple(row for number in range(len(found)) for row in results[number])
    failed = sum(any(row.error for row in found_rows) for found_rows in results.values())
    return Spread(folder.name, rows, len(found), failed)


def _serial(found: list[Unit]) -> Iterator[tuple[int, tuple[TraceRow, ...]]]:
    return ((number, rows_of(unit)) for number, unit in enumerate(found))


def _spread(found: list[Unit], address: str) -> Iterator[tuple[int, tuple[TraceRow, ...]]]:
    """On Dask's workers, in the order in which they finish. A worker that dies is a row with an error."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolError("Dask is not installed", "pip install 'moeprof[dask]', or leave out --dask")
    from distributed import as_completed

    with _client(address) as client:
        futures = {client.submit(rows_of, unit, pure=False): number for number, unit in enumerate(found)}
        for future in as_completed(futures):
            number = futures[future]
            error = future.exception()
            unit = found[number]
            failed = (TraceRow(unit.label, unit.variant, unit.rank, error=f"{type(error).__name__}: {error}"),)
            yield number, failed if error is not None else future.result()


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """A client of the scheduler; the local cluster has a worker process for each core and no dashboard."""
    from distributed import Client, LocalCluster

    if address == LOCAL:
        cluster = LocalCluster(threads_per_worker=1, processes=True, dashboard_address=None)
        with cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ToolError(f"no Dask scheduler answers at {address}: {error}", "start one: dask scheduler") from error
    with client:
        yield client
