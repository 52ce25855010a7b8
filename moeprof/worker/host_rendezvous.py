"""Where the captures of several hosts meet, and what they show each other, as a launcher's variables tell. Pure; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.errors import UsageError

ADDRESS, PORT, TOKEN = "MASTER_ADDR", "MOEPROF_PORT", "MOEPROF_TOKEN"
# A launcher's name of the run: no secret, but two runs that meet by mistake are told apart.
RUNS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE")
DEFAULT_PORT = 29871
SLURM_PORTS = (20_000, 20_000)  # the first, and how many: two jobs of one host take different ones


@dataclass(frozen=True)
class Meeting:
    """The address of rank 0's host, a port of it that moeprof listens on, and what signs messages ("": nothing is known)."""

    address: str
    port: int
    token: str


def meeting(launcher: str, environment: Mapping[str, str]) -> Meeting:
    """Where the captures of all hosts meet.

    Raises:
        UsageError: nothing tells the address of rank 0's host, or a port is no port.
    """
    address = environment.get(ADDRESS) or first_node(environment.get("SLURM_STEP_NODELIST", ""))
    if not address:
        raise UsageError(
            f"{launcher} does not tell the address of rank 0's host",
            f"give it on all hosts: {ADDRESS}=HOST in the environment",
        )
    return Meeting(address, _port(environment), token(environment))


def token(environment: Mapping[str, str]) -> str:
    """The user's own secret, else the launcher's name of the run, else nothing."""
    return environment.get(TOKEN) or ".".join(environment[name] for name in RUNS if environment.get(name))


def _port(environment: Mapping[str, str]) -> int:
    """Ours, else the one after the launcher's, which its own store holds; under Slurm by the job's number."""
    if environment.get(PORT):
        return _number(PORT, environment[PORT])
    if environment.get("MASTER_PORT"):
        return _number("MASTER_PORT", environment["MASTER_PORT"], 1)
    if environment.get("SLURM_JOB_ID", "").isdigit():
        return SLURM_PORTS[0] + int(environment["SLURM_JOB_ID"]) % SLURM_PORTS[1]
    return DEFAULT_PORT


def _number(name: str, text: str, more: int = 0) -> int:
    if not text.isdigit() or not 0 < int(text) + more < 1 << 16:
        raise UsageError(f"{name}={text!r} leaves no port", f"give a free one on all hosts: {PORT}=29871")
    return int(text) + more


def first_node(nodes: str) -> str:
    """The first name of Slurm's list: node01 of "node[01-04,07],x3"; "" of an empty one."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""
