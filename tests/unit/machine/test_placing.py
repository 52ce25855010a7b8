"""Where a launcher puts a process, and how ranks' answers become one."""

from __future__ import annotations

import pytest

from moeprof.errors import UsageError
from moeprof.machine import launcher
from moeprof.machine.launcher import Place
from moeprof.worker import processes, reduce
from moeprof.worker.messages import Built, MeasuredCeilings
from moeprof.workload.model import Proof

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip
MPIEXEC = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}  # inside a batch script, under no srun


@pytest.mark.parametrize(
    ("environment", "expected", "hosts"),
    [
        (TORCHRUN, Place("torchrun", 3, 4, 1, 2), 2),
        (MPIRUN, Place("mpirun", 1, 2, 1, 2), 1),
        (MPIEXEC, Place("mpiexec", 2, 4, 0, 2), 2),
        (SRUN | MPIEXEC, Place("mpiexec", 2, 4, 0, 2), 2),  # which Slurm started for it
        (SRUN, Place("srun", 2, 8, 2, 4), 2),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "8"}, Place("srun", 2, 8, 2, 8), 1),
    ],
)
def test_each_launcher(environment: dict[str, str], expected: Place, hosts: int) -> None:
    found = launcher.place(environment)
    assert found == expected and found is not None and found.hosts == hosts


@pytest.mark.parametrize("environment", [{}, BATCH, {"RANK": "0", "WORLD_SIZE": "2"}])
def test_no_launcher(environment: dict[str, str]) -> None:
    assert launcher.place(environment) is None


@pytest.mark.parametrize("change", [{"RANK": "x"}, {"RANK": "4"}, {"LOCAL_WORLD_SIZE": "5"}, {"LOCAL_RANK": "-1"}])
def test_variables_that_do_not_fit(change: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        launcher.place(TORCHRUN | change)


def test_an_iteration_takes_as_long_as_its_slowest_rank() -> None:
    assert reduce.slowest([[1, 5, 3], [2, 4, 3]]) == [2, 5, 3]
    assert reduce.built([Built(1, 9), Built(2, 8)]) == Built(2, 9)
    assert reduce.ceilings([MeasuredCeilings({"link": 9.0}), MeasuredCeilings({"link": 7.0})]) == {"link": 7.0}


def test_the_worst_proof_counts_and_names_its_rank() -> None:
    good, near, wrong = (
        Proof(True, "all", 1e-9, 1e-6),
        Proof(True, "all", 9e-7, 1e-6),
        Proof(False, "all", None, 1e-6, "nan"),
    )
    found = reduce.worst([good, near, good])
    assert found.ok and found.error == 9e-7 and "rank 1 is the worst" in found.checked
    found = reduce.worst([near, good, wrong])
    assert not found.ok and found.reason == "rank 2: nan"


def test_the_innermost_line_of_the_last_stack() -> None:
    log = (
        'noise\nCurrent thread 0x1 (most recent call first):\n  File "/a.py", line 1 in f\n'
        'Current thread 0x1 [python] (most recent call first):\n  File "/b/c.py", line 22 in run\n  File "/d.py", line 9 in g\n'
    )
    assert processes.innermost(log) == "/b/c.py:22" and processes.innermost("noise") == ""
