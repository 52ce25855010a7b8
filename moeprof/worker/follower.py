"""A rank that follows: it joins the process group and answers the leader's requests until told to quit.

A follower never outlives the process that started it, which is the leader, or on a further host ``host_ranks``: the kernel kills it
when that ends, however that happens.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from moeprof.errors import ExitCode, of_workload
from moeprof.worker import failures
from moeprof.worker.channel import Channel
from moeprof.worker.messages import Quit
from moeprof.worker.server import Local
from moeprof.worker.spec import WorkerSpec
from moeprof.workload.find import load

PR_SET_PDEATHSIG = 1  # of prctl(2)
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
QUIT_S = 5.0  # for the ranks of a host to take the process group down


def follow(spec: WorkerSpec) -> int:
    """The loop of rank 1 and up; which rank this is and where the store is stands in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
    and MASTER_PORT."""
    target, place = spec.target, spec.follower
    assert target is not None and target.team is not None and place is not None
    _end_with_parent(place.parent_pid)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # the leader asks where this rank stands
    rank, ranks, index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    channel = Channel.join(address, port, rank, ranks, target.team.room)
    channel.ahead_s = place.clock_ahead_ns / 1e9
    try:
        workload = load(target.workload)
        enter(target.device, index, channel, place.group_timeout_s)
        local = Local(workload, workload.variant(target.variant), target.device, rank, ranks, index)
        local.host, local.anchored = place.host, len(target.team.layout) > 1
        local.own = Path(place.out) if place.out else None
        local.barrier = channel.barrier
        channel.reply(0, local.about())
        _answer(channel, local)
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        known = of_workload(error)
        with suppress(ConnectionError):  # the leader is gone: nobody is left to read it
            channel.report(failures.raised(rank, known, channel.now_s()))
        return int(known.exit_code)
    leave()
    return ExitCode.OK


def _answer(channel: Channel, local: Local) -> None:
    number = 1
    while not isinstance(request := channel.receive(number), Quit):
        channel.reply(number, local.answer(request))
        number += 1


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
    store = channel.store.again()
    distributed.init_process_group(
        BACKENDS[device], store=distributed.PrefixStore(f"{store.prefix}group", store.raw), rank=channel.rank,
        world_size=channel.ranks, timeout=timedelta(seconds=timeout_s), **where,
    )  # fmt: skip


def leave() -> None:
    """Take the process group down."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
