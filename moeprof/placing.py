"""Where a process stands among ranks, as a launcher's variables tell: torchrun, srun, Open MPI's mpirun. Pure; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.errors import UsageError


@dataclass(frozen=True)
class Place:
    """A process among ``ranks``: its own rank, and the same on its host."""

    launcher: str
    rank: int
    ranks: int
    local_rank: int
    local_ranks: int

    @property
    def hosts(self) -> int:
        """How many hosts there are; each is taken to hold as many ranks as this one."""
        return -(-self.ranks // max(self.local_ranks, 1))


# launcher -> variables of rank, ranks, rank on the host, ranks on the host. A batch script that runs under no launcher has
# Slurm's variables of the job, and none of a step.
VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
}


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that a launcher gave this process; None without a launcher.

    Raises:
        UsageError: a variable of the launcher is no whole number, or the numbers do not fit together.
    """
    for launcher, names in VARIABLES.items():
        if all(name in environment for name in names[:3]):
            rank, ranks, local_rank = (_number(name, environment[name]) for name in names[:3])
            local_ranks = _number(names[3], environment.get(names[3], environment[names[1]]))
            found = Place(launcher, rank, ranks, local_rank, local_ranks)
            return _checked(found)
    return None


def _number(name: str, text: str) -> int:
    """The number; of Slurm's list of tasks per node ("4(x2),3") the first."""
    matched = re.match(r"\d+", text)
    if matched is None or not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
        raise UsageError(f"{name}={text!r} is no number of ranks", "unset it, or start moeprof by its launcher")
    return int(matched[0])


def _checked(found: Place) -> Place:
    if not (0 <= found.rank < found.ranks and 0 <= found.local_rank < found.local_ranks <= found.ranks):
        raise UsageError(
            f"{found.launcher} says rank {found.rank} of {found.ranks}, {found.local_rank} of {found.local_ranks} on this host",
            "unset its variables, or start moeprof by it",
        )
    return found
