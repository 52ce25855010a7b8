"""The ranks of a further host, of which this process is the parent and no rank itself: it starts them, reports their ends to the
leader, and where they stand. It ends with its host's capture, which need not be its parent, as nsys may stand between.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from moeprof.errors import ExitCode
from moeprof.storage.files import of_rank
from moeprof.worker import processes
from moeprof.worker.channel import Channel, JsonStore
from moeprof.worker.failures import Failure
from moeprof.worker.processes import Children
from moeprof.worker.spec import WorkerSpec

LOOK_S = 0.2
QUIT_S = 8.0  # for ranks that were told to quit
ORPHANED = "the capture of its host ended"


def run(spec: WorkerSpec) -> ExitCode:
    """Start the ranks of this host, and return once all have ended or the run is over."""
    target, place, log = spec.target, spec.follower, Path(spec.log or "worker.log")
    assert target is not None and target.team is not None and place is not None
    team, ranks, capture = target.team, target.team.of_host(place.host), place.parent_pid
    root = JsonStore.open(team.address, team.port)
    of_all_runs = root.under(team.room.rpartition("/")[0])
    channel = Channel(root.under(team.room), ranks[0], team.ranks, team.address, team.port)
    place = replace(place, parent_pid=os.getpid(), clock_ahead_ns=of_all_runs.get(f"ahead/{place.host}", 0) or 0)
    channel.ahead_s = place.clock_ahead_ns / 1e9
    children = Children(log, lambda failure: channel.report(replace(failure, at_s=channel.now_s())))
    for rank in ranks:
        follower = replace(spec, mode="follow", follower=place)
        children.start(rank, follower, processes.environment(team, rank, team.address, team.port))
    located, ok = False, None
    while children.watched and ok is None:
        if not processes.exists(capture):
            channel.report(Failure(ranks[0], "died", ORPHANED, "nothing", channel.now_s()))
            of_all_runs.put(f"part/{place.host}", None)  # nobody need wait for it
            ok = False
        elif not located and channel.asks_where():
            located = True
            running = {rank: (child.pid, of_rank(log, rank)) for rank, child in children.running.items()}
            channel.located(place.host, processes.positions(running).values())
        else:
            time.sleep(LOOK_S)
            ok = channel.over
    children.closing = ok is not None
    children.wait(QUIT_S if ok else 0)
    return ExitCode.OK
