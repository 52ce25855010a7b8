"""A capture from request to folder: plan, prove and time, profile, keep."""

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
from moeprof.capture.clean_timing import Clean, clean_processes
from moeprof.capture.host_part import HostPart
from moeprof.capture.hosts import Hello, Hosts, Meeting
from moeprof.capture.jobs import Job, profiling_jobs
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Plan, make_plan
from moeprof.capture.profiling import Profiling
from moeprof.capture.program import capture as program_capture
from moeprof.capture.program.capture import ProgramCapture
from moeprof.capture.progress import Progress
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, ExitCode, MoeprofError, ToolError
from moeprof.machine import launcher, nvml
from moeprof.notes import note
from moeprof.storage.capture_folder import OUTPUT, Store, choose
from moeprof.storage.files import PARTIAL
from moeprof.storage.manifest import FILE
from moeprof.worker.failures import RankError
from moeprof.worker.spec import Target


@dataclass(frozen=True)
class Result:
    """Where the capture is, how the command should end, what to say (empty where all went well) and what to run next."""

    folder: Path
    exit_code: ExitCode
    message: str
    next: str = ""


def capture(request: Request, progress: Progress) -> Result:
    """Run the whole request and keep it as a capture folder; under a launcher on several hosts, this host's part of it.

    Raises:
        MoeprofError: nothing could be captured at all. Failures of single variants or tools do not raise: they are in
            the result, with what was finished.
        KeyboardInterrupt: after what was finished has been kept; its argument says what and where.
    """
    place = ranks.several_hosts(request, os.environ)
    if place is None:
        return _lead(*_prepared(request), None, progress)
    meeting = hosts.meeting(place, os.environ, request.timeout_s)
    hellos, (plan, store) = meeting.exchange(partial(_hello, request, meeting))
    if meeting.host:
        return _follow(plan, store, meeting, progress)
    return _lead(plan, store, Hosts(meeting.team, meeting.store, hellos), progress)


def _prepared(request: Request, final: Path | None = None) -> tuple[Plan, Store]:
    plan = make_plan(request, os.environ)
    return plan, Store(choose(plan.name, final or request.output, request.force), manifest_builder.manifest(plan))


def _hello(request: Request, meeting: Meeting, first: Hello | None) -> tuple[Hello, tuple[Plan, Store]]:
    """What this host reports of itself, with its plan. Rank 0's host names the capture; every other host keeps its part beside that
    name."""
    beside, host = request.output or OUTPUT / "capture", meeting.host
    plan, store = _prepared(request, None if first is None else hosts.part_folder(beside, first.folder, host))
    capture_id = secrets.token_hex(16) if first is None else first.capture_id
    store.manifest = replace(store.manifest, capture_id=capture_id, host_count=len(meeting.team.layout), hosts=(host,))
    alike = {
        "name": plan.name, "device": plan.device, "tracer": plan.tracer, "params": plan.params,
        "variants": [variant.name for variant in plan.variants], "iterations": request.iterations,
    }  # fmt: skip
    place = launcher.place(os.environ)
    assert place is not None
    likeness = manifest_builder.likeness(store.manifest.environment)
    return Hello(place.rank, place.local_ranks, alike, likeness, store.final.name, capture_id), (plan, store)


def _lead(plan: Plan, store: Store, others: Hosts | None, progress: Progress) -> Result:
    """Rank 0's capture, which every capture on one host is."""
    problems: list[MoeprofError] = []
    store.open()
    if others is not None:
        store.note(*(note("hosts-differ", host=host, how=how) for host, how in hosts.unlike(others.hellos).items()))
    busy = [gpu for gpu in store.manifest.environment.gpus_before if gpu.other_processes]
    if busy:
        store.note(note("busy-gpu", processes=", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)))
    with _kept(store, progress), _led(others, store, plan.request.timeout_s, problems):
        parts = Parts(plan, store, others)
        if plan.workload is not None:
            _run_workload(plan, store, Profiling(store, progress, problems, parts.keep, others, plan.local_ranks))
        else:
            ProgramCapture(plan, store, parts, progress, problems).run()
        store.update(environment=replace(store.manifest.environment, gpus_after=nvml.gpus()))
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


def _follow(plan: Plan, store: Store, meeting: Meeting, progress: Progress) -> Result:
    """The capture of a further host's first rank."""
    team, host = meeting.team, meeting.host
    store.open()
    part = HostPart(plan, Parts(plan, store, host=host), meeting.store)
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
    return Result(
        folder,
        ExitCode.OK,
        "",
        f"ranks {ran[0]} to {ran[-1]} of {team.ranks} ran here; rank 0's host joins this part if it sees it",
    )


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
        if not _has_anything(store):
            store.remove()


def _has_anything(store: Store) -> bool:
    """Whether anything was finished, or a report was kept as its tool wrote it."""
    return any(v.rounds or v.parts for v in store.manifest.variants) or any(store.folder.glob("*/*.nsys-rep"))


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
    jobs = [(f"{job.name}: {job.tool}", job) for job in profiling_jobs(plan, store, plan.targets.values())]
    if plan.workload is None:
        jobs = list(program_capture.planned(plan, store))
    for title, job in jobs:
        lines += [f"# {title}", commands.printed(job.run.command.argv)]
    return "\n".join(lines)
