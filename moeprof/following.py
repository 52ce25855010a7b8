"""A rank that follows: it joins the process group and answers the leader's requests until told to quit.

A follower never outlives its leader: the kernel kills it when the leader ends, however that happens.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from moeprof.channel import Channel
from moeprof.errors import ExitCode, of_workload
from moeprof.serving import Local
from moeprof.workload import load

PR_SET_PDEATHSIG = 1  # of prctl(2)
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


def follow(args: argparse.Namespace) -> int:
    """The loop of rank 1 and up; where and which one is in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""
    _end_with(args.leader)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # the leader asks where this rank stands
    rank, ranks, index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    channel = Channel(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, ranks)
    try:
        workload = load(args.workload)
        enter(args.device, index, channel, args.group_timeout)
        local = Local(workload, workload.variant(args.variant), args.device, rank, ranks, index)
        local.barrier = channel.barrier
        channel.reply(0, local.about())
        _answer(channel, local)
    except Exception as error:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        return _failed(channel, error)
    leave()
    return ExitCode.OK


def _answer(channel: Channel, local: Local) -> None:
    number = 1
    while (request := channel.receive(number))["do"] != "quit":
        channel.reply(number, local.answer(request))
        number += 1


def _failed(channel: Channel, error: Exception) -> int:
    said = of_workload(error)
    channel.fail(said.message, said.hint, int(said.exit_code))
    return int(said.exit_code)


def _end_with(leader: int) -> None:
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
