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

from moeprof import __version__
from moeprof.capture import command_timing, commands, join, manifest_builder, ranks
from moeprof.capture.clean_timing import Clean, clean_processes
from moeprof.capture.hosts import READ_S, Beginning, Decision, Hosts, Over, Report, part_folder
from moeprof.capture.jobs import Job, profiling_jobs
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Plan, make_plan
from moeprof.capture.profiling import Profiling
from moeprof.capture.program import capture as program_capture
from moeprof.capture.program.capture import ProgramCapture
from moeprof.capture.progress import Progress, Silent
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, ExitCode, MoeprofError, ToolError
from moeprof.machine import nvml
from moeprof.machine.launcher import Place
from moeprof.notes import note
from moeprof.storage.capture_folder import OUTPUT, Store, choose
from moeprof.storage.files import PARTIAL
from moeprof.storage.manifest import FILE
from moeprof.worker.messages import ErrorReply
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
    hosts = Hosts.open(place, os.environ, request.timeout_s)
    begun, (plan, store) = hosts.agree(partial(_beginning, request, place))
    store.manifest = replace(store.manifest, capture_id=begun.capture_id, host_count=place.hosts, hosts=(place.host,))
    return _follow(plan, store, hosts) if place.host else _lead(plan, store, hosts, progress)


def _prepared(request: Request, final: Path | None = None) -> tuple[Plan, Store]:
    plan = make_plan(request, os.environ)
    return plan, Store(choose(plan.name, final or request.output, request.force), manifest_builder.manifest(plan))


def _beginning(request: Request, place: Place, first: Beginning | None) -> tuple[Beginning, tuple[Plan, Store]]:
    """The plan of one of several hosts, and what of it concerns all. Rank 0's host names the capture (``first``); every other one keeps
    its part beside that name."""
    part = None if first is None else part_folder(request.output or OUTPUT / "capture", first.folder, place.host)
    plan, store = _prepared(request, part)
    alike = {
        "moeprof": __version__, "workload": plan.name, "ranks of hosts": list(place.layout), "device": plan.device,
        "tracer": plan.tracer, "params": plan.params, "variants": [variant.name for variant in plan.variants],
        "iterations": request.iterations,
    }  # fmt: skip
    likeness = manifest_builder.likeness(store.manifest.environment)
    return Beginning(store.final.name, secrets.token_hex(16), alike, likeness), (plan, store)


def _lead(plan: Plan, store: Store, hosts: Hosts | None, progress: Progress) -> Result:
    """Rank 0's capture, which every capture on one host is."""
    problems: list[MoeprofError] = []
    store.open()
    if hosts is not None:
        store.note(*(note("hosts-differ", host=r.host, how=r.differs) for r in hosts.reports.values() if r.differs))
    busy = [gpu for gpu in store.manifest.environment.gpus_before if gpu.other_processes]
    if busy:
        store.note(note("busy-gpu", processes=", ".join(f"{g.other_processes} on GPU {g.index}" for g in busy)))
    with _kept(store, progress), _led(hosts, store, plan.request.timeout_s, problems):
        _run(plan, store, hosts, problems, progress)
        store.update(environment=replace(store.manifest.environment, gpus_after=nvml.gpus()))
    return _joined(_result(store, problems), store, hosts)


def _run(plan: Plan, store: Store, hosts: Hosts | None, problems: list[MoeprofError], progress: Progress) -> None:
    parts = Parts(plan, store)
    if hosts is not None:
        hosts.measure_clock()  # that failures of all hosts are put in order
    if plan.request.commands is not None:
        profiling = Profiling(store, progress, problems, parts.keep, hosts, plan.local_ranks)
        command_timing.run_commands(plan, store, profiling)
    elif plan.workload is not None:
        _run_workload(plan, store, Profiling(store, progress, problems, parts.keep, hosts, plan.local_ranks))
    else:
        ProgramCapture(plan, store, parts, progress, problems).run()


@contextmanager
def _led(hosts: Hosts | None, store: Store, timeout_s: float, problems: list[MoeprofError]) -> Iterator[None]:
    """After the block the other hosts finish their parts, whose problems are added."""
    try:
        yield
    except BaseException:
        if hosts is not None:
            hosts.finish(_has_anything(store), READ_S)
        raise
    if hosts is None:
        return
    known = bool(problems)
    reports = hosts.finish(_has_anything(store), timeout_s)
    problems += [replace(p, failure=None).exception() for report in reports.values() for p in report.problems]
    if missing := [host for host in hosts.others if host not in reports]:
        store.note(note("host-missing", hosts=", ".join(map(str, missing))))
        if not known:
            lost = f"host {missing[0]} did not finish its part"
            problems.append(CaptureError(lost, "read the output of its capture"))


def _follow(plan: Plan, store: Store, hosts: Hosts) -> Result:
    """The capture of a further host: the same up to what is decided, and kept as its part."""
    problems: list[MoeprofError] = []
    report, is_kept = None, False
    store.open()
    try:
        _run(plan, store, hosts, problems, Silent())
        hosts.decide(Decision())
    except Over as over:
        is_kept = bool(over.args[0])
        report = Report(plan.host, problems=tuple(map(ErrorReply.of, problems)))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the ranks of this host were ended") from None
    finally:
        store.drop_scratch()
        folder = store.close() if is_kept else store.folder
        if not is_kept and (report is not None or not _has_anything(store)):
            store.remove()
        hosts.leave(report)
    ran = hosts.team.of_host(plan.host)
    ranks_here = f"ranks {ran[0]} to {ran[-1]} of {hosts.team.ranks} ran here"
    return Result(folder, ExitCode.OK, "", f"{ranks_here}; rank 0's host joins this part if it sees it")


def _joined(result: Result, store: Store, hosts: Hosts | None) -> Result:
    """The capture with the parts of all hosts, where their folders are seen here; else with the command that joins them."""
    if hosts is None or not (result.folder / FILE).is_file():
        return result
    parts = [part_folder(result.folder, store.final.name, host) for host in hosts.others]
    there = all(join.belongs(part, store.manifest.capture_id) for part in parts)
    if not there or result.folder.name.endswith(PARTIAL):
        command = f"moeprof join {' '.join(map(str, (result.folder, *parts)))}"
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
    """Whether anything was finished, or a report was kept as its tool wrote it; of commands a proof is a result of its own, and a
    failed one ends the capture."""
    variants = store.manifest.variants
    if any(v.rounds or v.parts for v in variants) or any(store.folder.glob("*/*.nsys-rep")):
        return True
    return store.manifest.kind == "commands" and any(v.proof is not None for v in variants)


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
        if not proven and not profiling.problems and not plan.host:
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
    outcome = f"kept what was finished in {folder}" if folder.exists() else "nothing could be kept"
    return Result(folder, worst.exit_code, f"error: {worst.message} ({worst.hint}); {outcome}")


def dry_run(request: Request) -> str:
    """The commands that ``capture`` would run, each under a comment that names it; parameters are not calibrated yet."""
    plan = make_plan(request, os.environ)
    store = Store(choose(plan.name, request.output, True), manifest_builder.manifest(plan))
    if request.commands is not None:
        return "\n".join(command_timing.dry_run(plan, store))
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
