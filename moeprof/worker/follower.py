"""A rank that follows: it joins the process group and answers the leader's requests until told to quit.

A follower never outlives who started it: the kernel kills it when that ends, however that happens. On a further host the capture
there starts one, the **head**, maybe under nsys; the head starts the host's other ranks and watches them.
"""

from __future__ import annotations

import argparse
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
from moeprof.machine.launcher import team_of
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Cause
from moeprof.worker.processes import Children, environment, state
from moeprof.worker.server import Local
from moeprof.workload.find import load

PR_SET_PDEATHSIG = 1  # of prctl(2)
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
LOOK_S = 0.2
LEFT = "the capture of its host ended"
LINGER_S = 1.0  # of a head that fails: for the end of another rank of its host to be told
QUIT_S = 5.0  # for the ranks of a host to take the process group down


def follow(args: argparse.Namespace) -> int:
    """The loop of rank 1 and up; where and which one is in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""
    if not args.layout:
        _end_with_parent(args.leader)
    faulthandler.register(signal.SIGUSR1, all_threads=False)  # the leader asks where this rank stands
    rank, ranks, index = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    channel = Channel(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, ranks, room=args.room)
    channel.ahead_s = args.clock_ahead_ns / 1e9
    others: Children | None = None
    try:
        others = _others(args, rank, channel)
        workload = load(args.workload)
        enter(args.device, index, channel, args.group_timeout)
        local = _local(args, Local(workload, workload.variant(args.variant), args.device, rank, ranks, index))
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


def _local(args: argparse.Namespace, local: Local) -> Local:
    """Where several hosts meet in a room, traces have different clocks, and those of a further host a place of their own."""
    local.leads, local.anchored = bool(args.layout), bool(args.room)
    local.own = Path(args.own) if args.own else None
    return local


def _others(args: argparse.Namespace, rank: int, channel: Channel) -> Children:
    """The other ranks of this host, where this one is its head; their ends are told to the leader."""
    ear = channel.again() if args.layout else channel

    def ended(cause: Cause) -> None:
        ear.tell(asdict(replace(cause, at_s=channel.now_s())))

    others = Children(Path(args.log or "worker.log"), ended)
    if args.layout:
        team = team_of(args.layout)
        end_with(args.leader, lambda: _left(ear, rank, team.host(rank)))
        for other in team.of_host(team.host(rank))[1:]:
            place = environment(team, other, channel.address, channel.port)
            others.start(other, follower_words(args), place)
    return others


def _left(ear: Channel, rank: int, host: int) -> None:
    """The capture of this host has ended, and its ranks do: the leader is told, and rank 0's capture."""
    ear.tell(asdict(Cause(rank, LEFT, "nothing", ear.now_s(), silent=True)))
    ear.gone(host)


def follower_words(args: argparse.Namespace) -> list[str]:
    """The arguments that a head hands on to the ranks of its host."""
    words = ["--workload", args.workload, "--variant", args.variant, "--device", args.device, "--room", args.room]
    words += ["--group-timeout", str(args.group_timeout), "--clock-ahead-ns", str(args.clock_ahead_ns)]
    return words + (["--own", args.own] if args.own else [])


def _answer(channel: Channel, local: Local) -> None:
    number = 1
    while (request := channel.receive(number))["do"] != "quit":
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
