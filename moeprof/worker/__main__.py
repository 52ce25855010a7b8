"""The child process that runs one variant: build it, prove it, time it, or run it under ranges for a profiler.

Started as ``python -P -m moeprof.worker --spec JSON`` (``moeprof.worker.spec``). Modes:

serve    answer requests on stdin, one JSON object a line (``moeprof.worker.messages``)
measure  N iterations under ranges: for nsys, for ncu, or recorded by torch.profiler
follow   rank 1 and up of a workload with ranks (``follower``); the leader is rank 0 (``leader``)
host     the parent of the ranks of a further host (``host_ranks``)

``python -m moeprof.worker run prog.py args`` is another thing: a Python program of the user's under torch.profiler, where nsys is
missing (``moeprof.worker.run_program``).

Nothing of pandas, plotly or click is imported here: this is the process being profiled. A failure is the last line, an ``error_reply``
message, of stdout in ``serve`` and of stderr elsewhere; the exit status is its code (5: the workload).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from moeprof.errors import ExitCode, MoeprofError, of_workload
from moeprof.machine.launcher import Team
from moeprof.storage.files import write_whole
from moeprof.storage.json import dumps
from moeprof.worker import follower, host_ranks, leader, messages, reduce, run_program
from moeprof.worker import spec as specs
from moeprof.worker.leader import Report
from moeprof.worker.messages import Build, ErrorReply, Measure, Prove, Quit, Reply, Request, Round, RunResult, Warm
from moeprof.worker.server import Alone, Crew, Local, Server
from moeprof.worker.spec import Params, Target, WorkerSpec
from moeprof.worker.start_barrier import StartBarrier
from moeprof.workload.find import load

HOLD_S = 0.02  # between two looks for parameters: others are timed meanwhile
_STARTED = time.monotonic()


def crew(spec: WorkerSpec, report: Report) -> Crew:
    """This process alone, or with the other ranks where the workload has any."""
    assert spec.target is not None
    target = spec.target
    workload = load(target.workload)
    variant = workload.variant(target.variant)
    if not workload.ranks:
        return Alone(Local(workload, variant, target.device))
    team = target.team or Team((1,))
    leader.share_cores(team.layout[0])
    local = Local(workload, variant, target.device, ranks=team.ranks)
    local.anchored = len(team.layout) > 1
    return leader.Leader(local, replace(spec, target=replace(target, team=team)), report)


def serve(spec: WorkerSpec, out: TextIO) -> None:
    """Answer requests on stdin until ``Quit`` or the end of the input; replies go to ``out``."""
    server = Server(crew(spec, lambda error: _say(out, error)))
    _say(out, server.hello())
    _log("ready")
    for line in sys.stdin:
        request: Request[Any] = messages.request(line)
        if isinstance(request, Quit):
            break
        _say(out, server.answer(request))
        if not isinstance(request, Round):
            _log(f"{messages.name(request)} done")
    server.crew.close()


def _say(out: TextIO, message: Reply) -> None:
    out.write(messages.line(message) + "\n")
    out.flush()


def measure(spec: WorkerSpec) -> None:
    """Build, prove, warm up, measure under the profiler, write the result.

    Nothing runs on the device after the measured region: on a GPU the next process may measure as soon as this one left the start
    barrier, else once the result is there.
    """
    assert spec.target is not None and spec.measurement is not None
    run = spec.measurement
    params = spec.target.params if run.hold is None else _held_params(spec.target, StartBarrier.at(run.hold))
    ranks = crew(spec, lambda error: _say(sys.stderr, error))
    ranks.restart_clock()
    ranks.start()
    ranks.ask(Build(params))
    proof = reduce.proven(ranks.ask(Prove())).proof
    ranks.ask(Warm())
    _log("built, proven and warmed up")
    if run.gate is not None and StartBarrier.at(run.gate).wait():
        ranks.restart_clock()
    processes = ranks.ask(Measure(run.iterations, run.profiler, run.out, run.gate))
    _log("measured")
    write_whole(Path(run.result), dumps(RunResult(run.iterations, proof, tuple(processes))))
    ranks.close()


def _held_params(target: Target, hold: StartBarrier) -> Params:
    """Import what the variant needs, touch no device, and wait for the parameters."""
    for name in ("torch", *load(target.workload).variant(target.variant).imports):
        with suppress(ImportError):  # whoever needs it will say so
            importlib.import_module(name)
    _log("imported")
    hold.wait(HOLD_S)
    return specs.read_params(hold.text())


def _log(event: str) -> None:
    print(f"moeprof.worker: {time.monotonic() - _STARTED:.2f} s: {event}", file=sys.stderr, flush=True)


def main() -> int:
    """Run one spec; stdout carries the protocol alone, whatever the workload prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(prog="moeprof.worker")
    parser.add_argument("--spec", required=True, help="what to do, as JSON: moeprof.worker.spec")
    given = parser.parse_args().spec
    errors: TextIO = sys.stderr
    try:
        spec = specs.read(given)
        errors = out if spec.mode == "serve" else sys.stderr
        return _run(spec, out)
    except MoeprofError as error:
        return _failed(errors, error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _failed(errors, of_workload(error, "the traceback is in the log"))


def _run(spec: WorkerSpec, out: TextIO) -> int:
    if spec.mode == "follow":
        return follower.follow(spec)
    if spec.mode == "host":
        return host_ranks.run(spec)
    if spec.mode == "serve":
        serve(spec, out)
    else:
        measure(spec)
    return ExitCode.OK


def _failed(errors: TextIO, error: MoeprofError) -> int:
    _say(errors, ErrorReply.of(error))
    return int(error.exit_code)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run_program.main(sys.argv[2:])
    sys.exit(main())
