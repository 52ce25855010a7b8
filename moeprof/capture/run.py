"""A capture from request to folder: plan, prove and time, profile, keep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from moeprof.capture import commands, manifest_builder
from moeprof.capture.clean_timing import Clean, clean_processes
from moeprof.capture.hosts import Hosts, hello
from moeprof.capture.jobs import Job, profiling_jobs
from moeprof.capture.parts import Parts
from moeprof.capture.plan import PROGRAM, Plan, make_plan
from moeprof.capture.profiling import Profiling
from moeprof.capture.progress import Progress
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, ExitCode, MoeprofError, ToolError
from moeprof.machine import nvml
from moeprof.machine.launcher import Team
from moeprof.notes import note
from moeprof.storage.capture_folder import LOGS, Store, choose
from moeprof.worker import host_rendezvous
from moeprof.worker.spec import Target


@dataclass(frozen=True)
class Result:
    """Where the capture is, how the command should end, and the message for the user (empty if all went well)."""

    folder: Path
    exit_code: ExitCode
    message: str


def capture(request: Request, progress: Progress) -> Result:
    """Run the whole request and keep it as a capture folder.

    Raises:
        MoeprofError: nothing could be captured at all. Failures of single variants or tools do not raise: they are in
            the result, with what was finished.
        KeyboardInterrupt: after what was finished has been kept; its argument is the message for the user.
    """
    plan = make_plan(request, os.environ)
    store = Store(choose(plan.name, request.output, request.force), manifest_builder.manifest(plan))
    hosts = _join(plan, store)
    store.open()
    store.note(*(note("hosts-differ", host=host, how=how) for host, how in hosts.unlike.items()))
    busy = [gpu for gpu in store.manifest.environment.gpus_before if gpu.other_processes]
    if busy:
        store.note(note("busy-gpu", processes=", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)))
    problems: list[MoeprofError] = []
    with _kept(store, progress), closing(hosts):
        profiling = Profiling(store, progress, problems, Parts(plan, store, hosts).keep, hosts)
        if plan.workload is not None:
            _run_workload(plan, store, profiling)
        else:
            _run_program(plan, store, profiling)
        store.update(environment=replace(store.manifest.environment, gpus_after=nvml.gpus()))
    return _result(store, problems)


def _join(plan: Plan, store: Store) -> Hosts:
    """The hosts of the capture, all of which have joined."""
    hosts = Hosts(plan.team or Team((1,)), store.folder / LOGS, timeout_s=plan.request.timeout_s)
    machine = manifest_builder.likeness(store.manifest.environment)
    mine = hello((0, plan.local_ranks), plan.name, plan.device, plan.tracer, machine)
    hosts.join(host_rendezvous.token(os.environ), mine)
    return hosts


@contextmanager
def _kept(store: Store, progress: Progress) -> Iterator[None]:
    """Whatever happens, raw files go; what was finished stays; a folder with nothing in it goes."""
    try:
        yield
    except KeyboardInterrupt:
        finished = _finished(store)
        if not finished:
            raise KeyboardInterrupt("interrupted before anything was finished; nothing was kept") from None
        store.note(note("interrupted", kept=finished))
        raise KeyboardInterrupt(f"interrupted; {store.folder} holds {finished}") from None
    except OSError as error:
        raise CaptureError(
            f"cannot write the capture: {error.strerror or error} ({store.folder})",
            "free some space or choose another -o",
        ) from error
    finally:
        progress.close()
        store.drop_scratch()
        if not any(v.rounds or v.parts for v in store.manifest.variants):
            store.remove()


def _finished(store: Store) -> str:
    done = [
        f"{v.name} ({len(v.rounds)} rounds, {len(v.parts)} parts)"
        for v in store.manifest.variants
        if v.rounds or v.parts
    ]
    return ", ".join(done)


def _run_workload(plan: Plan, store: Store, profiling: Profiling) -> None:
    """Prove and time all variants, then profile those that are right."""

    def jobs(targets: Iterable[Target]) -> list[Job]:
        return profiling_jobs(plan, store, targets)

    def begin(names: list[str]) -> None:
        if plan.team is None:  # a process with ranks starts them when it starts
            profiling.early.start(jobs(plan.targets[name] for name in names))

    try:
        clean = Clean(
            plan, store, profiling.progress, profiling.problems, profiling.hosts, begin, profiling.early.settle
        )
        proven = clean.run()
        if not proven and not profiling.problems:
            why = "; ".join(dict.fromkeys(v.reason for v in store.manifest.variants if v.status == "skipped"))
            raise ToolError(f"no variant of {plan.name} runs here: {why}", "moeprof list says what each needs")
        profiling.process_bytes = clean.process_bytes
        if wanted := jobs(proven):
            profiling.run(wanted)
    finally:
        profiling.early.close()


def _run_program(plan: Plan, store: Store, profiling: Profiling) -> None:
    profiling.run(profiling_jobs(plan, store, ()))
    if profiling.problems:
        store.record(PROGRAM, status="failed", reason=profiling.problems[0].message)
    else:
        store.record(PROGRAM, status="ok")


def _result(store: Store, problems: list[MoeprofError]) -> Result:
    """A capture whose tools all worked takes its final name, a wrong variant included: that is its finding."""
    broken = [p for p in problems if p.exit_code != ExitCode.WORKLOAD]
    missing = [v for v in store.manifest.variants if v.status == "pending"]
    folder = store.folder
    if not broken and not missing and folder.exists():
        folder = store.close()
    if not problems:
        return Result(folder, ExitCode.OK, "")
    worst = (broken or problems)[0]
    kept = f"kept what was finished in {folder}" if folder.exists() else "nothing could be kept"
    return Result(folder, worst.exit_code, f"error: {worst.message} ({worst.hint}); {kept}")


def dry_run(request: Request) -> str:
    """The commands that ``capture`` would run, each under a comment that names it; parameters are not calibrated yet."""
    plan = make_plan(request, os.environ)
    store = Store(choose(plan.name, request.output, True), manifest_builder.manifest(plan))
    lines = []
    for process in clean_processes(plan):
        worker = commands.serve(plan, process.target, store.log(process.target.variant, process.kind))
        lines += [f"# {process.name}: clean timing", commands.printed(worker.argv)]
    for job in profiling_jobs(plan, store, plan.targets.values()):
        lines += [f"# {job.name}: {job.tool}", commands.printed(job.run.command.argv)]
    return "\n".join(lines)
