"""The child process that runs one variant: build it, prove it, time it, or run it under ranges for a profiler.

Started as ``python -P -m moeprof.worker MODE ...``. Modes:

serve    answer requests on stdin, one JSON object a line: prepare, build, prove, round, quit (see ``serving.Server``)
trace    N iterations under ranges, for nsys (``--profiler nsys``) or recorded by torch.profiler (``--profiler torch``)
count    one iteration under ranges, for ncu
follow   rank 1 and up of a workload with ranks, started by the leader, which is rank 0 (see ``leading`` and ``following``)
program  a Python program of the user's under torch.profiler, where nsys is missing

Nothing of pandas, plotly or click is imported here: this is the process being profiled. A failure is the last line, JSON
with error, hint and code, of stdout in ``serve`` and of stderr elsewhere; the exit status is that code (5: the workload).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from moeprof.errors import ExitCode, MoeprofError, of_workload, said_of
from moeprof.machine.launcher import Team, team_of
from moeprof.storage.files import write_whole
from moeprof.storage.json import dumps
from moeprof.worker import follower, leader, reduce
from moeprof.worker.leader import Say
from moeprof.worker.server import Alone, Crew, Local, Server
from moeprof.worker.start_barrier import wait_at
from moeprof.workload.find import load

TIMEOUT_S = 300.0  # of what ranks do together
HOLD_S = 0.02  # between two looks for parameters: others are timed meanwhile
_STARTED = time.monotonic()


def crew(args: argparse.Namespace, say: Say) -> Crew:
    """This process alone, or with the other ranks where the workload has any."""
    workload = load(args.workload)
    variant = workload.variant(args.variant)
    if not workload.ranks:
        return Alone(Local(workload, variant, args.device))
    team = _team(args)
    leader.share_cores(team.layout[0])
    local = Local(workload, variant, args.device, ranks=team.ranks)
    local.anchored = len(team.layout) > 1
    words = ("--workload", args.workload, "--variant", args.variant, "--device", args.device)
    return leader.Leader(local, team, words, args.timeout, Path(args.log) if args.log else None, say)


def _team(args: argparse.Namespace) -> Team:
    """The ranks of this host, or those of several that meet."""
    if not args.layout:
        return Team((args.nproc,))
    address, _, port = args.meet.rpartition(":")
    return replace(team_of(args.layout), address=address, port=int(port), room=args.room)


def serve(args: argparse.Namespace, out: TextIO) -> None:
    """The protocol loop on stdin and ``out``."""
    server = Server(crew(args, lambda said: _say(out, said)))
    _say(out, server.hello())
    _log("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("do") == "quit":
            break
        _say(out, server.answer(request))
        if request.get("do") != "round":
            _log(f"{request.get('do')} done")
    server.crew.close()


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def profile(args: argparse.Namespace) -> None:
    """Modes ``trace`` and ``count``: build, prove, warm up, measure under the profiler, write ``--result``.

    Nothing runs on the device after the measured region: on a GPU the next process may measure as soon as ``--gate``.over is
    there, else once ``--result`` is.
    """
    params = json.loads(args.params if args.hold is None else _held(args))
    ranks = crew(args, lambda said: _say(sys.stderr, said))
    ranks.restart_clock()
    ranks.start()
    ranks.ask({"do": "build", "params": params})
    proof = reduce.proven(ranks.ask({"do": "prove"}))["proof"]
    ranks.ask({"do": "warm"})
    _log("built, proven and warmed up")
    if wait_at(args.gate):
        ranks.restart_clock()
    iterations = 1 if args.mode == "count" else args.iterations
    over = None if args.gate is None else f"{args.gate}.over"
    request = {"do": "measure", "iterations": iterations, "profiler": args.profiler, "out": args.out, "over": over}
    about = ranks.ask(request)
    _log("measured")
    write_whole(Path(args.result), dumps({"iterations": iterations, "proof": proof, "ranks": about}))
    ranks.close()


def _held(args: argparse.Namespace) -> str:
    """Import what the variant needs, touch no device, and wait for the file ``--hold``, which has its parameters."""
    for name in ("torch", *load(args.workload).variant(args.variant).imports):
        with suppress(ImportError):  # whoever needs it will say so
            importlib.import_module(name)
    _log("imported")
    wait_at(args.hold, HOLD_S)
    return Path(args.hold).read_text(encoding="utf-8")


def _log(event: str) -> None:
    print(f"moeprof.worker: {time.monotonic() - _STARTED:.2f} s: {event}", file=sys.stderr, flush=True)


def program(args: argparse.Namespace) -> None:
    """A Python program under torch.profiler; its exit status is kept in ``--result``."""
    from moeprof.worker import profiler

    write_whole(Path(args.result), dumps({"exit_code": profiler.run_program(args.command, args.out)}))


def parser() -> argparse.ArgumentParser:
    """The worker's command line."""
    top = argparse.ArgumentParser(prog="moeprof.worker")
    modes = top.add_subparsers(dest="mode", required=True)
    for mode in ("serve", "trace", "count", "follow"):
        sub = modes.add_parser(mode)
        sub.add_argument("--workload", required=True)
        sub.add_argument("--variant", required=True)
        sub.add_argument("--device", choices=("cuda", "cpu"), required=True)
        sub.add_argument("--layout")  # ranks of each host, where there are several; a follower that has it is a head
        sub.add_argument("--room", default="")
        if mode == "follow":
            sub.add_argument("--leader", type=int, required=True)
            sub.add_argument("--group-timeout", type=float, required=True)
            sub.add_argument("--clock-ahead-ns", type=int, default=0)
            sub.add_argument("--log")
            sub.add_argument("--own")
            continue
        sub.add_argument("--meet")  # HOST:PORT
        sub.add_argument("--nproc", type=int, default=1)
        sub.add_argument("--timeout", type=float, default=TIMEOUT_S)
        sub.add_argument("--log")
        if mode != "serve":
            given = sub.add_mutually_exclusive_group(required=True)
            given.add_argument("--params")
            given.add_argument("--hold")
            sub.add_argument("--iterations", type=int, default=1)
            sub.add_argument("--profiler", choices=("nsys", "ncu", "torch", "none"), required=True)
            sub.add_argument("--out")
            sub.add_argument("--result", required=True)
            sub.add_argument("--gate")
    run = modes.add_parser("program")
    run.add_argument("--out", required=True)
    run.add_argument("--result", required=True)
    run.add_argument("command", nargs=argparse.REMAINDER)
    return top


def main() -> int:
    """Run one mode; stdout carries the protocol alone, whatever the workload prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    args = parser().parse_args()
    try:
        if args.mode == "serve":
            serve(args, out)
        elif args.mode == "follow":
            return follower.follow(args)
        elif args.mode == "program":
            program(args)
        else:
            profile(args)
    except MoeprofError as error:
        return _failed(args.mode, out, error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _failed(args.mode, out, of_workload(error, "the traceback is in the log"))
    return ExitCode.OK


def _failed(mode: str, out: TextIO, error: MoeprofError) -> int:
    _say(out if mode == "serve" else sys.stderr, said_of(error))
    return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
