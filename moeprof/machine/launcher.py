"""Where a process stands among ranks, as a launcher's variables tell: torchrun, srun, Open MPI's mpirun, MPICH's mpiexec. Pure; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.errors import UsageError

RANKS_ON_CPU = 2  # where nobody said how many
ADDRESS, PORT, AGENT_STORE = "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"
DEFAULT_PORT = 29500  # torch's


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

    @property
    def first(self) -> int:
        """The first rank of its host."""
        return self.rank - self.local_rank

    @property
    def host(self) -> int:
        """The number of its host; 0 is rank 0's alone, also where ranks are not in blocks by host."""
        return max(Team(self.layout).host(self.first), min(self.first, 1))

    def team(self, environment: Mapping[str, str]) -> Team:
        """The ranks of all hosts, and where their store is.

        Raises:
            UsageError: nothing tells where it is.
        """
        where = rendezvous(self.launcher, environment)
        return Team(self.layout, where.address, where.port, f"moeprof/{where.attempt}")


@dataclass(frozen=True)
class Team:
    """The ranks of a run, host by host in blocks. The keys of several hosts are in the store at ``address`` and ``port`` under
    ``room``, those of a run in a room within that; one host meets on itself."""

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

    def host_shown(self, rank: int) -> int | None:
        """The host of a rank where there are several, else None."""
        return self.host(rank) if len(self.layout) > 1 else None


def team_of(layout: str) -> Team:
    """The ranks of each host out of "4,4"."""
    return Team(tuple(int(part) for part in layout.split(",")))


@dataclass(frozen=True)
class Variables:
    """The names under which a launcher tells a process its rank, the number of ranks, and both of its host."""

    rank: str
    ranks: str
    local_rank: str
    local_ranks: str


# torchrun; Open MPI; MPICH and Intel MPI; Slurm. A batch script that runs under no launcher has Slurm's variables of the job,
# and none of a step.
LAUNCHERS = {
    "torchrun": Variables("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "mpirun": Variables(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ),
    "mpiexec": Variables("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "srun": Variables("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
}
# what an environment that was recorded tells of a process: also of PMIx, and of a job of Slurm
RANK_VARIABLES = (*(names.rank for names in LAUNCHERS.values()), "PMIX_RANK")
SIZE_VARIABLES = (*(names.ranks for names in LAUNCHERS.values()), "SLURM_NTASKS")
NODE = "SLURM_NODEID"  # which of the list of Slurm this host is


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that a launcher gave this process; None without a launcher.

    Raises:
        UsageError: a variable of the launcher is no whole number, or the numbers do not fit together.
    """
    for launcher, names in LAUNCHERS.items():
        required = (names.rank, names.ranks, names.local_rank)
        if all(name in environment for name in required):
            rank, ranks, local_rank = (_number(name, environment[name]) for name in required)
            by_node = _list(names.local_ranks, environment.get(names.local_ranks, environment[names.ranks]))
            node = _number(NODE, environment.get(NODE, "0")) if len(by_node) > 1 else 0
            local_ranks = by_node[min(node, len(by_node) - 1)]
            differ = by_node if len(set(by_node)) > 1 else ()
            return _checked(Place(launcher, rank, ranks, local_rank, local_ranks, differ))
    return None


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a launcher meet: the key-value store at this address. ``served``: the launcher keeps it, else rank 0
    does. ``attempt``: how often the launcher has started them anew."""

    address: str
    port: int
    served: bool = False
    attempt: str = "0"


def rendezvous(launcher: str, environment: Mapping[str, str]) -> Rendezvous:
    """The rendezvous that torch.distributed has under this launcher; Slurm's first node where nothing else tells the address.

    Raises:
        UsageError: nothing tells the address of rank 0's host, or the port is no port.
    """
    address = environment.get(ADDRESS) or first_node(environment.get("SLURM_STEP_NODELIST", ""))
    if not address:
        raise UsageError(
            f"{launcher} does not report the address of rank 0's host", f"set it on all hosts: {ADDRESS}=HOST"
        )
    port = environment.get(PORT) or str(DEFAULT_PORT)
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"{PORT}={port!r} is no port", f"set a free one on all hosts: {PORT}={DEFAULT_PORT}")
    served = environment.get(AGENT_STORE) == "True"
    return Rendezvous(address, int(port), served, environment.get("TORCHELASTIC_RESTART_COUNT", "0"))


def first_node(nodes: str) -> str:
    """The first name of Slurm's list: node01 of "node[01-04,07],x3"; "" of an empty one."""
    parts = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    return "".join(part or "" for part in parts.groups()) if parts else ""


def _number(name: str, text: str) -> int:
    """The one number."""
    return _list(name, text)[0]


def _list(name: str, text: str) -> tuple[int, ...]:
    """The number; of Slurm's list of tasks per node ("4(x2),3") each node's."""
    if not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
        raise UsageError(f"{name}={text!r} is no number of ranks", "unset it, or start moeprof with its launcher")
    return tuple(
        int(number) for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))
    )


def _checked(place: Place) -> Place:
    if place.told and sum(place.told) != place.ranks:
        raise UsageError(
            f"{place.launcher} reports {place.ranks} ranks, and {'+'.join(map(str, place.told))} on its hosts",
            "unset its variables, or start moeprof with it",
        )
    if not (0 <= place.rank < place.ranks and 0 <= place.local_rank < place.local_ranks <= place.ranks):
        raise UsageError(
            f"{place.launcher} reports rank {place.rank} of {place.ranks}, {place.local_rank} of {place.local_ranks} on this host",
            "unset its variables, or start moeprof with it",
        )
    return place
