"""The child process that runs one variant: build it, prove it, time it, or run it under ranges for a profiler.

Started as ``python -P -m moeprof.worker MODE ...``. Modes:

serve    answer requests on stdin, one JSON object a line: prepare, build, prove, round, quit (see ``Server``)
trace    N iterations under ranges, for nsys (``--profiler nsys``) or recorded by torch.profiler (``--profiler torch``)
count    one iteration under ranges, for ncu
program  a Python program of the user's under torch.profiler, where nsys is missing

Nothing of pandas, plotly or click is imported here: this is the process being profiled. A failure is the last line, JSON
with error, hint and code, of stdout in ``serve`` and of stderr elsewhere; the exit status is that code (5: the workload).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from moeprof import region
from moeprof.codec import dumps, encode
from moeprof.errors import ExitCode, MoeprofError, WorkloadError
from moeprof.files import write_whole
from moeprof.workload import Machine, Proof, Step, Variant, Workload, load

MIN_ITERATIONS = 3
MAX_ITERATIONS = 400
WARM_UP = 3
WARM_SECONDS = 0.02  # untimed, at the start of a round: another variant ran since this one did
_STARTED = time.monotonic()


def machine(device: str) -> Machine:
    """The facts of this machine as torch sees them; ``device`` "cpu" hides the GPUs."""
    import torch

    cuda = device == "cuda" and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if cuda else 0
    major_minor = ".".join(map(str, torch.cuda.get_device_capability(0))) if cuda else None
    return Machine(
        cuda=cuda,
        gpus=gpus,
        gpu_name=torch.cuda.get_device_name(0) if cuda else None,
        compute_capability=major_minor,
        linked=gpus > 1 and torch.cuda.can_device_access_peer(0, 1),
        cpus=os.cpu_count() or 1,
        torch=torch.__version__,
    )


def gpu_uuid(device: str) -> str | None:
    """The UUID of the GPU that torch uses, which NVML may count otherwise; None where torch (before 2.4) does not tell."""
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return None
    found = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return None if found is None else str(found)


def versions() -> dict[str, str | None]:
    """Versions of what the workload runs on."""
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}


class Session:
    """One variant on one device: built once, then proven, timed or run under ranges."""

    def __init__(self, workload: Workload, variant: Variant, device: str, params: dict[str, Any]) -> None:
        self.workload, self.variant, self.device, self.params = workload, variant, device, params
        self.step: Step = variant.build(params, device)

    def prove(self) -> Proof:
        """The workload's own proof of this variant."""
        return self.workload.prove(self.params, self.device, self.step)

    def synchronise(self) -> None:
        """Wait for all work of the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def warm_up(self) -> None:
        """Run a few iterations untimed."""
        for _ in range(WARM_UP):
            self.step.run()
        self.synchronise()

    def round(self, seconds: float) -> list[int]:
        """Clean times in ns of single iterations, about ``seconds`` of them; those before them warm up."""
        warm = self.times(_count(self.times(1)[0], WARM_SECONDS, 1))
        return self.times(_count(min(warm), seconds, MIN_ITERATIONS) + 1)[1:]

    def times(self, count: int) -> list[int]:
        """``count`` iterations back to back: CUDA events between them on a GPU, a clock on a CPU."""
        if self.device != "cuda":
            return [_clocked(self.step.run) for _ in range(count)]
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            self.step.run()
            mark.record()
        torch.cuda.synchronize()
        return [round(a.elapsed_time(b) * 1e6) for a, b in pairwise(marks)]

    def measured(self, iterations: int) -> None:
        """``iterations`` under ranges workload/variant > measure > iteration i; ends with a synchronise."""
        with region.region(f"{self.workload.name}/{self.variant.name}"), region.region(region.MEASURE):
            for number in range(iterations):
                with region.region(region.ITERATION, number):
                    self.step.run()
            self.synchronise()


def _count(iteration_ns: int, seconds: float, least: int) -> int:
    return max(least, min(MAX_ITERATIONS, round(seconds * 1e9 / max(iteration_ns, 1))))


def _clocked(run: Callable[[], None]) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


class Server:
    """Answers requests, one JSON object a line, until ``quit`` or the end of the input.

    {"do": "prepare", "params": {}} -> {"params": resolved, "ceilings": {}}
    {"do": "build", "params": {}}   -> {"flops": int, "bytes_moved": int}
    {"do": "prove"}                 -> {"proof": {}, "facts": {}}
    {"do": "round", "seconds": s}   -> {"times_ns": []}
    """

    def __init__(self, workload: Workload, variant: Variant, device: str) -> None:
        self.workload, self.variant, self.device = workload, variant, device
        self.facts = machine(device)
        self.session: Session | None = None

    def hello(self) -> dict[str, Any]:
        """The first line: what machine this is, and why the variant cannot run here, if so."""
        skip = self.variant.needs(self.facts)
        facts = {"machine": encode(self.facts), "versions": versions(), "gpu_uuid": gpu_uuid(self.device)}
        return {"ready": True, **facts, "skip": skip}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        actions = {"prepare": self._prepare, "build": self._build, "prove": self._prove, "round": self._round}
        action = actions.get(request.get("do", ""))
        if action is None:
            raise WorkloadError(f"unknown request {request.get('do')!r}", f"known: {', '.join(actions)}")
        return action(request)

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        params = self.workload.resolve(request["params"], self.facts)
        return {"params": params, "ceilings": self.workload.ceilings(params, self.device)}

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        self.session = Session(self.workload, self.variant, self.device, request["params"])
        return {"flops": self.session.step.flops, "bytes_moved": self.session.step.bytes_moved}

    def _prove(self, request: dict[str, Any]) -> dict[str, Any]:
        session = self._built()
        return {"proof": encode(session.prove()), "facts": session.step.facts()}

    def _round(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"times_ns": self._built().round(float(request["seconds"]))}

    def _built(self) -> Session:
        if self.session is None:
            raise WorkloadError("nothing is built yet", 'send {"do": "build"} first')
        return self.session


def serve(args: argparse.Namespace, out: TextIO) -> None:
    """The protocol loop on stdin and ``out``."""
    workload = load(args.workload)
    server = Server(workload, workload.variant(args.variant), args.device)
    _say(out, server.hello())
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("do") == "quit":
            return
        _say(out, server.answer(request))


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def profile(args: argparse.Namespace) -> None:
    """Modes ``trace`` and ``count``: build, prove, warm up, measure under the profiler, write ``--result``.

    Nothing runs on the device after the measured region: the next process may measure as soon as ``--result`` is there.
    """
    from moeprof import recording

    workload = load(args.workload)
    session = Session(workload, workload.variant(args.variant), args.device, json.loads(args.params))
    proof = session.prove()
    session.warm_up()
    _log("built, proven and warmed up")
    _wait_at(args.gate)
    iterations = 1 if args.mode == "count" else args.iterations
    with recording.recorder(args.profiler, args.out, args.device):
        session.measured(iterations)
    _log("measured")
    write_whole(Path(args.result), dumps({"iterations": iterations, "proof": encode(proof)}))


def _wait_at(gate: str | None, interval_s: float = 0.002) -> None:
    """Say by the file ``gate``.ready that all is set up, then wait until ``gate`` exists.

    Setting up takes seconds: several processes do it side by side, and then measure one at a time.
    """
    if gate is None:
        return
    Path(gate + ".ready").touch()
    while not Path(gate).exists():
        time.sleep(interval_s)


def _log(event: str) -> None:
    print(f"moeprof.worker: {time.monotonic() - _STARTED:.2f} s: {event}", file=sys.stderr, flush=True)


def program(args: argparse.Namespace) -> None:
    """A Python program under torch.profiler; its exit status is kept in ``--result``."""
    from moeprof import recording

    write_whole(Path(args.result), dumps({"exit_code": recording.run_program(args.command, args.out)}))


def parser() -> argparse.ArgumentParser:
    """The worker's command line."""
    top = argparse.ArgumentParser(prog="moeprof.worker")
    modes = top.add_subparsers(dest="mode", required=True)
    for mode in ("serve", "trace", "count"):
        sub = modes.add_parser(mode)
        sub.add_argument("--workload", required=True)
        sub.add_argument("--variant", required=True)
        sub.add_argument("--device", choices=("cuda", "cpu"), required=True)
        if mode != "serve":
            sub.add_argument("--params", required=True)
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
        elif args.mode == "program":
            program(args)
        else:
            profile(args)
    except MoeprofError as error:
        return _failed(args.mode, out, error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _failed(args.mode, out, WorkloadError(f"{type(error).__name__}: {error}", "the traceback is in the log"))
    return ExitCode.OK


def _failed(mode: str, out: TextIO, error: MoeprofError) -> int:
    said = {"error": error.message, "hint": error.hint, "code": int(error.exit_code)}
    _say(out if mode == "serve" else sys.stderr, said)
    return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
