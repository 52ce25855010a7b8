"""A capture from request to folder: choose device and tools, prove and time, profile, keep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moeprof.capture import commands, manifest_builder, ranks
from moeprof.capture.clean_timing import Clean
from moeprof.capture.commands import Request
from moeprof.capture.hosts import Hosts, hello
from moeprof.capture.jobs import Job
from moeprof.capture.manifest_builder import PROGRAM
from moeprof.capture.plan import Setup, setup
from moeprof.capture.profiling import Profile
from moeprof.capture.progress import Progress, Silent
from moeprof.errors import CaptureError, ExitCode, MoeprofError, ToolError
from moeprof.machine import tools
from moeprof.notes import note
from moeprof.storage.capture_folder import LOGS, Store, choose
from moeprof.worker import host_rendezvous
from moeprof.worker.spec import Target
from moeprof.workload.find import load
from moeprof.workload.model import Workload


@dataclass(frozen=True)
class Result:
    """Where the capture is, how the command should end, and what to say (empty where all went well)."""

    folder: Path
    exit_code: ExitCode
    message: str


def capture(request: Request, progress: Progress) -> Result:
    """Run the whole request and keep it as a capture folder.

    Raises:
        MoeprofError: nothing could be captured at all. Failures of single variants or tools do not raise: they are in
            the result, with what was finished.
        KeyboardInterrupt: after what was finished has been kept; its argument says what and where.
    """
    found = setup(request)
    workload = load(request.workload) if request.workload is not None else None
    count = ranks.count(request, workload, found.device, os.environ)
    found = ranks.setup(request, found, count)
    request = _counting(request, workload, found)
    store = Store(
        choose(manifest_builder.name(request, workload), request.output, request.force),
        manifest_builder.manifest(request, found, workload, count),
    )
    problems: list[MoeprofError] = []
    hosts = Hosts(ranks.team(request, count, os.environ), store.folder / LOGS, timeout_s=request.timeout_s)
    machine = manifest_builder.likeness(store.manifest.environment)
    mine = hello((0, hosts.team.layout[0]), store.manifest.name, found.device, found.tracer, machine)
    hosts.join(host_rendezvous.token(os.environ), mine)
    store.open()
    store.note(*(note("hosts-differ", host=host, how=how) for host, how in hosts.unlike.items()))
    busy = [g for g in store.manifest.environment.gpus_before if g.other_processes]
    if busy:
        store.note(note("busy-gpu", processes=", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)))
    with _kept(store, progress), closing(hosts):
        if workload is not None:
            _run_workload(request, found, workload, (count, hosts), store, progress, problems)
        else:
            _run_program(request, found, store, progress, problems)
        store.update(environment=replace(store.manifest.environment, gpus_after=tools.gpus()))
    return _result(store, problems)


def _counting(request: Request, workload: Workload | None, found: Setup) -> Request:
    """As many kernels for ncu as the user says, else as the workload says; its stalls where the workload asks."""
    request = replace(request, roofline=found.roofline)
    if workload is None:
        return request
    return replace(request, ncu_kernels=request.ncu_kernels or workload.counted, stalls=workload.stalls)


@contextmanager
def _kept(store: Store, progress: Progress) -> Iterator[None]:
    """Whatever happens, raw files go; what was finished stays; a folder with nothing in it goes."""
    try:
        yield
    except KeyboardInterrupt:
        kept = _finished(store)
        if not kept:
            raise KeyboardInterrupt("interrupted before anything was finished; nothing was kept") from None
        store.note(note("interrupted", kept=kept))
        raise KeyboardInterrupt(f"interrupted; {store.folder} holds {kept}") from None
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


def _run_workload(
    request: Request,
    found: Setup,
    workload: Workload,
    crew: tuple[int | None, Hosts],
    store: Store,
    progress: Progress,
    problems: list[MoeprofError],
) -> None:
    assert request.workload is not None
    count, hosts = crew
    targets = {
        v.name: Target(request.workload, v.name, found.device, team=None if count is None else hosts.team)
        for v in store.manifest.variants
    }
    profile = Profile(request, store, progress, problems, hosts=hosts)

    def jobs(chosen: Iterable[Target]) -> list[Job]:
        each = list(chosen)
        return _trace_jobs(found, profile, each) + _count_jobs(found, profile, each)

    def begin(names: list[str]) -> None:
        if count is None:  # a process with ranks starts them when it starts
            profile.early.start(jobs(targets[name] for name in names))

    try:
        clean = Clean(request, store, progress, problems, hosts, begin, profile.early.settle)
        proven = clean.run(targets)
        if not proven and not problems:
            why = "; ".join(dict.fromkeys(v.reason for v in store.manifest.variants if v.status == "skipped"))
            raise ToolError(f"no variant of {workload.name} runs here: {why}", "moeprof list says what each needs")
        profile.bytes_each = clean.bytes_each
        if wanted := jobs(proven.values()):
            profile.run(wanted)
    finally:
        profile.early.close()


def _trace_jobs(found: Setup, profile: Profile, targets: Iterable[Target]) -> list[Job]:
    return [profile.trace_job(target, found.nsys) for target in targets] if found.traces else []


def _count_jobs(found: Setup, profile: Profile, targets: Iterable[Target]) -> list[Job]:
    return [profile.count_job(target, found.ncu) for target in targets] if found.ncu is not None else []


def _run_program(
    request: Request, found: Setup, store: Store, progress: Progress, problems: list[MoeprofError]
) -> None:
    profile = Profile(request, store, progress, problems)
    jobs = _program_jobs(request, found, profile)
    profile.run(jobs)
    if not problems:
        store.record(PROGRAM, status="ok")
    else:
        store.record(PROGRAM, status="failed", reason=problems[0].message)


def _program_jobs(request: Request, found: Setup, profile: Profile) -> list[Job]:
    scratch = profile.store.scratch
    result = scratch / "program-trace.json"
    jobs = []
    if found.nsys is not None:
        run = commands.nsys_program(request, found.nsys, scratch / "program.nsys-rep")
        keep_nsys = partial(profile.keep_nsys, PROGRAM, found.nsys, run.command, None)
        jobs.append(Job(PROGRAM, "nsys", run, None, result, keep_nsys))
    elif found.torch:
        run = commands.torch_program(request, result, scratch / "program-kineto.json")
        jobs.append(Job(PROGRAM, "torch", run, None, result, partial(profile.keep_kineto, PROGRAM, run.command, None)))
    if found.ncu is not None:
        run = commands.ncu_program(request, found.ncu, scratch / "program.csv")
        jobs.append(Job(PROGRAM, "ncu", run, None, result, partial(profile.keep_counters, PROGRAM, run)))
    return jobs


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
    """The commands that ``capture`` would run, one a line; parameters still as asked for, not calibrated."""
    found = setup(request)
    folder = choose(PROGRAM, request.output, True)
    if request.workload is None:
        request = _counting(request, None, found)
        profile = Profile(request, Store(folder, manifest_builder.manifest(request, found, None)), Silent(), [])
        return "\n".join(commands.printed(job.run.command) for job in _program_jobs(request, found, profile))
    workload = load(request.workload)
    count = ranks.count(request, workload, found.device, os.environ)
    found = ranks.setup(request, found, count)
    name, request = request.workload, _counting(request, workload, found)
    store = Store(folder, manifest_builder.manifest(request, found, workload, count))
    hosts = Hosts(ranks.team(request, count, os.environ))
    profile = Profile(request, store, Silent(), [], hosts=hosts)
    lines = []
    for record in store.manifest.variants:
        team = None if count is None else hosts.team
        target = Target(name, record.name, found.device, store.manifest.params, team)
        serve = commands.serve(request, target, store.log(record.name, "clean"))
        command = commands.printed(commands.Command(serve.argv, None, request.timeout_s))
        lines += [command] * (
            1 + (record.name == store.manifest.baseline)
        )  # the baseline's twin has a process of its own
        jobs = _trace_jobs(found, profile, [target]) + _count_jobs(found, profile, [target])
        lines += [commands.printed(job.run.command) for job in jobs]
    return "\n".join(lines)
