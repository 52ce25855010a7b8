"""Where a process stands among ranks, as a launcher's variables tell: torchrun, srun, Open MPI's mpirun. Pure; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.errors import UsageError

RANKS_ON_CPU = 2  # where nobody said how many


@dataclass(frozen=True)
class Place:
    """A process among ``ranks``: its own rank, and the same on its host."""

    launcher: str
    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    told: tuple[int, ...] = ()  # ranks of each host, where the launcher tells that they differ

    @property
    def layout(self) -> tuple[int, ...]:
        """Ranks of each host, in the order of hosts; where nobody tells, each is taken to hold as many as this one."""
        full, rest = divmod(self.ranks, max(self.local_ranks, 1))
        return self.told or (self.local_ranks,) * full + ((rest,) if rest else ())

    @property
    def hosts(self) -> int:
        """How many hosts there are."""
        return len(self.layout)


@dataclass(frozen=True)
class Team:
    """The ranks of a run, host by host in blocks. Several hosts meet at ``address`` and ``port``, each run of a variant in a
    ``room`` of its own; one host meets on itself."""

    layout: tuple[int, ...]
    address: str = ""
    port: int = 0
    room: str = ""

    @property
    def text(self) -> str:
        """The layout as ``team_of`` reads it."""
        return ",".join(map(str, self.layout))

    @property
    def ranks(self) -> int:
        """How many there are."""
        return sum(self.layout)

    def first(self, host: int) -> int:
        """The first rank of a host."""
        return sum(self.layout[:host])

    def of_host(self, host: int) -> range:
        """The ranks of a host."""
        return range(self.first(host), self.first(host + 1))

    def host(self, rank: int) -> int:
        """The host of a rank."""
        return next(host for host in range(len(self.layout)) if rank in self.of_host(host))

    def named(self, rank: int) -> str:
        """`` (host 2)`` where there are several hosts, else nothing."""
        return f" (host {self.host(rank)})" if len(self.layout) > 1 else ""


def team_of(layout: str) -> Team:
    """The ranks of each host out of "4,4"."""
    return Team(tuple(int(part) for part in layout.split(",")))


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
NODE = "SLURM_NODEID"  # which of the list of Slurm this host is


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that a launcher gave this process; None without a launcher.

    Raises:
        UsageError: a variable of the launcher is no whole number, or the numbers do not fit together.
    """
    for launcher, names in VARIABLES.items():
        if all(name in environment for name in names[:3]):
            rank, ranks, local_rank = (_number(name, environment[name]) for name in names[:3])
            each = _list(names[3], environment.get(names[3], environment[names[1]]))
            node = _number(NODE, environment.get(NODE, "0")) if len(each) > 1 else 0
            local_ranks, told = each[min(node, len(each) - 1)], each if len(set(each)) > 1 else ()
            return _checked(Place(launcher, rank, ranks, local_rank, local_ranks, told))
    return None


def _number(name: str, text: str) -> int:
    """The one number."""
    return _list(name, text)[0]


def _list(name: str, text: str) -> tuple[int, ...]:
    """The number; of Slurm's list of tasks per node ("4(x2),3") each node's."""
    if not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
        raise UsageError(f"{name}={text!r} is no number of ranks", "unset it, or start moeprof by its launcher")
    return tuple(
        int(number) for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))
    )


def _checked(found: Place) -> Place:
    if found.told and sum(found.told) != found.ranks:
        raise UsageError(
            f"{found.launcher} says {found.ranks} ranks, and {'+'.join(map(str, found.told))} on its hosts",
            "unset its variables, or start moeprof by it",
        )
    if not (0 <= found.rank < found.ranks and 0 <= found.local_rank < found.local_ranks <= found.ranks):
        raise UsageError(
            f"{found.launcher} says rank {found.rank} of {found.ranks}, {found.local_rank} of {found.local_ranks} on this host",
            "unset its variables, or start moeprof by it",
        )
    return found
