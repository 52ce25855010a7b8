"""A capture from request to folder: choose device and tools, prove and time, profile, keep."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moeprof.capture import commands, hosts, join, manifest_builder, ranks
from moeprof.capture.clean_timing import Clean
from moeprof.capture.commands import Request
from moeprof.capture.host_part import HostPart
from moeprof.capture.hosts import Hello, Hosts, Meeting
from moeprof.capture.jobs import Job
from moeprof.capture.manifest_builder import PROGRAM
from moeprof.capture.plan import Setup, setup
from moeprof.capture.profiling import Profile
from moeprof.capture.progress import Progress, Silent
from moeprof.errors import CaptureError, ExitCode, MoeprofError, ToolError
from moeprof.machine import launcher, tools
from moeprof.machine.launcher import Team
from moeprof.notes import note
from moeprof.storage.capture_folder import OUTPUT, Store, choose
from moeprof.storage.files import PARTIAL
from moeprof.storage.manifest import FILE
from moeprof.worker.failures import RankError
from moeprof.worker.spec import Target
from moeprof.workload.find import load
from moeprof.workload.model import Workload


@dataclass(frozen=True)
class Result:
    """Where the capture is, how the command should end, what to say (empty where all went well) and what to run next."""

    folder: Path
    exit_code: ExitCode
    message: str
    next: str = ""


@dataclass(frozen=True)
class Prepared:
    """What a request means on this host, and the folder that is to be written."""

    request: Request
    found: Setup
    workload: Workload | None
    team: Team | None  # None of what has no ranks
    store: Store


def capture(request: Request, progress: Progress) -> Result:
    """Run the whole request and keep it as a capture folder; under a launcher on several hosts, this host's part of it.

    Raises:
        MoeprofError: nothing could be captured at all. Failures of single variants or tools do not raise: they are in
            the result, with what was finished.
        KeyboardInterrupt: after what was finished has been kept; its argument says what and where.
    """
    place = ranks.several_hosts(request, os.environ)
    if place is None:
        return _lead(_prepared(request), None, progress)
    meeting = hosts.meeting(place, os.environ, request.timeout_s)
    hellos, prepared = meeting.exchange(partial(_hello, request, meeting))
    if meeting.host:
        return _follow(prepared, meeting, progress)
    return _lead(prepared, Hosts(meeting.team, meeting.store, hellos), progress)


def _prepared(request: Request, final: Path | None = None) -> Prepared:
    found = setup(request)
    workload = load(request.workload) if request.workload is not None else None
    count = ranks.count(request, workload, found.device, os.environ)
    found = ranks.setup(request, found, count)
    request = _counting(request, workload, found)
    store = Store(
        choose(manifest_builder.name(request, workload), final or request.output, request.force),
        manifest_builder.manifest(request, found, workload, count),
    )
    return Prepared(request, found, workload, None if count is None else ranks.team(request, count, os.environ), store)


def _hello(request: Request, meeting: Meeting, first: Hello | None) -> tuple[Hello, Prepared]:
    """What this host reports of itself, and what is prepared here. Rank 0's host names the capture; every other host keeps its part
    beside the same name."""
    final = (
        None if first is None else hosts.part_folder(request.output or OUTPUT / "capture", first.folder, meeting.host)
    )
    prepared = _prepared(request, final)
    capture_id = secrets.token_hex(16) if first is None else first.capture_id
    prepared.store.manifest = replace(
        prepared.store.manifest, capture_id=capture_id, host_count=len(meeting.team.layout), hosts=(meeting.host,)
    )
    manifest, found = prepared.store.manifest, prepared.found
    plan = {
        "name": manifest.name, "device": found.device, "tracer": found.tracer, "params": manifest.params,
        "variants": [v.name for v in manifest.variants], "iterations": request.iterations,
    }  # fmt: skip
    rank, count = meeting.team.first(meeting.host), meeting.team.layout[meeting.host]
    place = launcher.place(os.environ)
    if place is not None:
        rank, count = place.rank, place.local_ranks
    likeness = manifest_builder.likeness(manifest.environment)
    return Hello(rank, count, plan, likeness, prepared.store.final.name, capture_id), prepared


def _lead(prepared: Prepared, others: Hosts | None, progress: Progress) -> Result:
    """Rank 0's capture, which all captures of one host are."""
    request, store = prepared.request, prepared.store
    problems: list[MoeprofError] = []
    store.open()
    if others is not None:
        store.note(*(note("hosts-differ", host=host, how=how) for host, how in hosts.unlike(others.hellos).items()))
    busy = [g for g in store.manifest.environment.gpus_before if g.other_processes]
    if busy:
        store.note(note("busy-gpu", processes=", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)))
    with _kept(store, progress), _led(others, store, request.timeout_s, problems):
        if prepared.workload is not None:
            _run_workload(prepared, others, progress, problems)
        else:
            _run_program(request, prepared.found, store, progress, problems)
        store.update(environment=replace(store.manifest.environment, gpus_after=tools.gpus()))
    return _joined(_result(store, problems), others)


@contextmanager
def _led(others: Hosts | None, store: Store, timeout_s: float, problems: list[MoeprofError]) -> Iterator[None]:
    """After the block the other hosts finish their parts, whose problems are added."""
    if others is None:
        yield
        return
    try:
        yield
    except BaseException:
        others.finish(_has_anything(store), hosts.READ_S)
        raise
    known = bool(problems)
    reports = others.finish(_has_anything(store), timeout_s)
    for report in reports.values():
        for lost in report.failures:
            ranks.failed(store, lost.variant, RankError(lost.failure))
            problems.append(RankError(lost.failure, f"{lost.variant}: "))
            store.note(note("no-trace", variant=lost.variant, why=lost.failure.text))
    missing = [host for host in range(1, len(others.team.layout)) if host not in reports]
    if missing:
        store.note(note("host-missing", hosts=", ".join(map(str, missing))))
        if not known:
            problems.append(
                CaptureError(f"host {missing[0]} did not finish its part", "read the output of its capture")
            )


def _follow(prepared: Prepared, meeting: Meeting, progress: Progress) -> Result:
    """The capture of a further host's first rank."""
    store, team, host = prepared.store, meeting.team, meeting.host
    assert prepared.request.workload is not None
    store.open()
    profile = Profile(prepared.request, store, progress, [], team=team, host=host)
    kinds = ("clean", "twin", prepared.found.tracer)
    targets = {
        f"{v.name}-{kind}": Target(prepared.request.workload, v.name, prepared.found.device, team=team)
        for v in store.manifest.variants
        for kind in kinds
    }
    part = HostPart(profile, meeting.store, targets, prepared.found.nsys)
    try:
        keep = part.follow()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the ranks of this host were ended") from None
    finally:
        progress.close()
        store.drop_scratch()
    folder = store.close() if keep else store.folder
    if not keep:
        store.remove()
    part.report()
    ran = team.of_host(host)
    return Result(folder, ExitCode.OK, "", f"ranks {ran[0]} to {ran[-1]} of {team.ranks} ran here")


def _joined(result: Result, others: Hosts | None) -> Result:
    """The capture with the parts of all hosts, where their folders are seen here; else with the command that joins them."""
    if others is None or not (result.folder / FILE).is_file():
        return result
    parts = [
        hosts.part_folder(result.folder, others.hellos[0].folder, host) for host in range(1, len(others.team.layout))
    ]
    command = f"moeprof join {' '.join(map(str, (result.folder, *parts)))}"
    if result.folder.name.endswith(PARTIAL) or not all(
        join.belongs(part, others.hellos[0].capture_id) for part in parts
    ):
        return replace(result, next=f"Each host has its part. Once all are here, join them: {command} -o OUT")
    join.join((result.folder, *parts), result.folder)
    for part in parts:
        shutil.rmtree(part)
    return result


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
        if not _has_anything(store):
            store.remove()


def _has_anything(store: Store) -> bool:
    """Whether anything was finished."""
    return any(v.rounds or v.parts for v in store.manifest.variants)


def _finished(store: Store) -> str:
    done = [
        f"{v.name} ({len(v.rounds)} rounds, {len(v.parts)} parts)"
        for v in store.manifest.variants
        if v.rounds or v.parts
    ]
    return ", ".join(done)


def _run_workload(prepared: Prepared, others: Hosts | None, progress: Progress, problems: list[MoeprofError]) -> None:
    request, found, workload, store = prepared.request, prepared.found, prepared.workload, prepared.store
    assert request.workload is not None and workload is not None
    team = prepared.team or Team((1,))
    targets = {
        v.name: Target(request.workload, v.name, found.device, team=prepared.team) for v in store.manifest.variants
    }
    profile = Profile(request, store, progress, problems, team=team, hosts=others)

    def jobs(chosen: Iterable[Target]) -> list[Job]:
        each = list(chosen)
        return _trace_jobs(found, profile, each) + _count_jobs(found, profile, each)

    def begin(names: list[str]) -> None:
        if prepared.team is None:  # a process with ranks starts them when it starts
            profile.early.start(jobs(targets[name] for name in names))

    try:
        clean = Clean(request, store, progress, problems, team, others, begin, profile.early.settle)
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
    folder = choose(PROGRAM, request.output, True)
    found = setup(request)
    if request.workload is None:
        request = _counting(request, None, found)
        profile = Profile(request, Store(folder, manifest_builder.manifest(request, found, None)), Silent(), [])
        return "\n".join(commands.printed(job.run.command) for job in _program_jobs(request, found, profile))
    workload = load(request.workload)
    count = ranks.count(request, workload, found.device, os.environ)
    found = ranks.setup(request, found, count)
    name, request = request.workload, _counting(request, workload, found)
    store = Store(folder, manifest_builder.manifest(request, found, workload, count))
    team = ranks.team(request, count, os.environ)
    profile = Profile(request, store, Silent(), [], team=team)
    lines = []
    for record in store.manifest.variants:
        target = Target(name, record.name, found.device, store.manifest.params, None if count is None else team)
        serve = commands.serve(request, target, store.log(record.name, "clean"))
        command = commands.printed(commands.Command(serve.argv, None, request.timeout_s))
        lines += [command] * (
            1 + (record.name == store.manifest.baseline)
        )  # the baseline's twin has a process of its own
        jobs = _trace_jobs(found, profile, [target]) + _count_jobs(found, profile, [target])
        lines += [commands.printed(job.run.command) for job in jobs]
    return "\n".join(lines)
