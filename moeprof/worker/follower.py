"""A rank that follows: it joins the process group and answers the leader's requests until told to quit.

A follower never outlives who started it: the kernel kills it when that ends, however that happens. On a further host the capture
there starts one, the **head**, maybe under nsys; the head starts the host's other ranks and watches them.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from moeprof.errors import ExitCode, of_workload
from moeprof.machine.launcher import Team
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Cause
from moeprof.worker.messages import Quit
from moeprof.worker.processes import Children, environment, state
from moeprof.worker.server import Local
from moeprof.worker.spec import Follower, WorkerSpec
from moeprof.workload.find import load

PR_SET_PDEATHSIG = 1  # of prctl(2)
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
LOOK_S = 0.2
LEFT = "the capture of its host ended"
LINGER_S = 1.0  # of a head that fails: for the end of another rank of its host to be told
QUIT_S = 5.0  # for the ranks of a host to take the process group down


def follow(spec: WorkerSpec) -> int:
    """The loop of rank 1 and up; where and which one is in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""
    target, place = spec.target, spec.follower
    assert target is not None and target.team is not None and place is not None
    if not place.head:
        _end_with_parent(place.parent_pid)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # the leader asks where this rank stands
    rank, ranks, index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    channel = Channel(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, ranks, room=target.team.room)
    channel.ahead_s = place.clock_ahead_ns / 1e9
    others: Children | None = None
    try:
        others = _others(spec, target.team, place, rank, channel)
        workload = load(target.workload)
        enter(target.device, index, channel, place.group_timeout_s)
        local = Local(workload, workload.variant(target.variant), target.device, rank, ranks, index)
        local.leads, local.anchored = place.head, len(target.team.layout) > 1
        local.own = Path(place.out) if place.out else None
        local.barrier = channel.barrier
        channel.reply(0, local.about())
        _answer(channel, local)
        others.closing = True
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        status = _failed(channel, error)
        if others is not None:
            others.linger(LINGER_S)
        return status
    leave()
    others.wait(QUIT_S)
    return ExitCode.OK


def _others(spec: WorkerSpec, team: Team, place: Follower, rank: int, channel: Channel) -> Children:
    """The other ranks of this host, where this one is its head; their ends are told to the leader."""
    ear = channel.again() if place.head else channel

    def ended(cause: Cause) -> None:
        ear.tell(asdict(replace(cause, at_s=channel.now_s())))

    others = Children(Path(spec.log or "worker.log"), ended)
    if place.head:
        end_with(place.parent_pid, lambda: _left(ear, rank, team.host(rank)))
        child = replace(spec, follower=replace(place, head=False, parent_pid=os.getpid()))
        for other in team.of_host(team.host(rank))[1:]:
            others.start(other, child, environment(team, other, channel.address, channel.port))
    return others


def _left(ear: Channel, rank: int, host: int) -> None:
    """The capture of this host has ended, and its ranks do: the leader is told, and rank 0's capture."""
    ear.tell(asdict(Cause(rank, LEFT, "nothing", ear.now_s(), silent=True)))
    ear.gone(host)


def _answer(channel: Channel, local: Local) -> None:
    number = 1
    while not isinstance(request := channel.receive(number), Quit):
        channel.reply(number, local.answer(request))
        number += 1


def _failed(channel: Channel, error: Exception) -> int:
    said = of_workload(error)
    channel.fail(said.message, said.hint, int(said.exit_code))
    return int(said.exit_code)


def end_with(pid: int, last: Callable[[], None]) -> None:
    """End when the process ``pid`` does, which need not be the parent, as nsys may stand between; ``last`` is called before."""

    def watch() -> None:
        _until_ended(pid)
        try:
            last()
        finally:
            os._exit(ExitCode.FAILED)

    threading.Thread(target=watch, daemon=True).start()


def _until_ended(pid: int) -> None:
    """Until a process that is no child of ours has ended; where the kernel lets nobody wait for that, by looking."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # an old kernel, or a sandbox
        while state(pid) not in ("", "Z"):
            time.sleep(LOOK_S)
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _end_with_parent(leader: int) -> None:
    """Be killed when the leader ends; Linux alone does it."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != leader:  # it ended before
        os._exit(ExitCode.FAILED)


def enter(device: str, index: int, channel: Channel, timeout_s: float) -> None:
    """Take the device, and initialise torch.distributed over a connection of its own."""
    import torch
    from torch import distributed

    where: dict[str, Any] = {}
    if device == "cuda":
        torch.cuda.set_device(index)
        where = {"device_id": torch.device("cuda", index)}
    store = distributed.PrefixStore("group", channel.again().store)
    distributed.init_process_group(
        BACKENDS[device], store=store, rank=channel.rank, world_size=channel.ranks,
        timeout=timedelta(seconds=timeout_s), **where,
    )  # fmt: skip


def leave() -> None:
    """Take the process group down."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
