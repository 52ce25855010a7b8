"""Commands as variants: set up, proven to do the same work, timed in interleaved rounds with no profiler, then traced."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.capture import command_clock, command_run, commands
from moeprof.capture.command_run import Place, Watched
from moeprof.capture.command_set import Check, CommandSet, CommandVariant
from moeprof.capture.commands import Files, Nsys, ToolRun
from moeprof.capture.jobs import Job, ToolName
from moeprof.capture.plan import PACKAGES, Plan
from moeprof.capture.profiling import Profiling
from moeprof.capture.program import interpreter
from moeprof.capture.progress import Progress
from moeprof.capture.rounds import Timing, Workers
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.notes import note
from moeprof.stats.round_order import TWIN
from moeprof.stats.verdict import LOOKS, MIN_ROUNDS
from moeprof.storage.capture_folder import Store
from moeprof.storage.json import decode
from moeprof.storage.manifest import Round
from moeprof.workload.model import Proof

BUDGET_S = 600  # of clean timing: each round starts every command anew, the baseline twice
COMPARE_S = 600  # time limit of a comparison of files


def run_commands(plan: Plan, store: Store, profiling: Profiling) -> None:
    """Prove and time all commands, then trace those that do the same work."""
    assert plan.request.commands is not None
    clean = CommandsClean(plan, plan.request.commands, store, profiling.progress, profiling.problems)
    right = clean.run()
    jobs, untraced = trace_jobs(plan, store, right)
    store.note(*untraced)
    if not jobs:
        return
    for job in jobs:
        _traced_place(store, job.name).emptied()
    before = len(profiling.problems)
    for job in jobs:
        profiling.run([job])  # one after the other: a command waits for no start barrier
    if plan.device == "cpu":  # of a program without torch there is nothing to trace on a CPU: the notes say so
        del profiling.problems[before:]


@dataclass
class CommandsClean:
    """The clean phase of commands; ``problems`` collects what failed, variant by variant."""

    plan: Plan
    commands: CommandSet
    store: Store
    progress: Progress
    problems: list[MoeprofError]
    longest_s: dict[str, float] = field(default_factory=dict)  # the last run of each command
    lost: set[str] = field(default_factory=set)
    units: dict[str, int | None] = field(default_factory=dict)  # how many a run of each command does

    def run(self) -> list[CommandVariant]:
        """The variants that may be traced."""
        self.progress.phase("prove", len(self.commands.variants))
        if self.commands.setup:
            self._set_up("setup", self.commands.setup, None, {})
        for variant in self.commands.variants:
            try:
                self._first_runs(variant)
            except MoeprofError as error:
                self._fail(variant.name, error)
        self._same_units()
        self._prove()
        right = [v for v in self.commands.variants if v.name not in self.lost]
        if len(right) > 1 and self.commands.baseline in right:
            self._time(right)
        for variant in right:
            if variant.name not in self.lost:
                self.store.record(variant.name, status="ok")
        return [v for v in right if v.name not in self.lost]

    def _set_up(self, name: str, argv: tuple[str, ...], folder: Path | None, added: dict[str, str]) -> None:
        log = self.store.log(name, "setup")
        status = command_run.step(f"{name}: its set-up", argv, folder, log, self.plan.request.timeout_s, added)
        if status:
            raise WorkloadError(
                f"{name}: its set-up ended with {command_run.how_it_ended(status)}; it last printed: {command_run.last_line(log)}",
                f"read {log}",
            )

    def place(self, name: str, kind: str) -> Place:
        """Where the runs of a variant that prove, or that are timed, leave their files."""
        scratch = self.store.scratch.resolve()
        return Place(scratch / "runs" / f"{name}-{kind}", self.store.log(name, "clean").resolve())

    def _first_runs(self, variant: CommandVariant) -> None:
        """Set a command up and run it: for the check and, as it is not timed yet, to warm up."""
        if variant.setup:
            self._set_up(variant.name, variant.setup, variant.folder, variant.environment)
        for _ in range(max(self.commands.warm_up_runs, 1)):
            began = time.time()
            ran, _ = self._run(variant, "proof")
            command_clock.times_ns(ran, self.commands.clock, self.commands.warm_up_steps)
            self.units[variant.name] = command_clock.units_in(ran, self.commands.clock)
            if self.commands.check is not None and self.commands.check.files:
                self._written(variant, self.commands.check, began)

    def _run(self, variant: CommandVariant, kind: str) -> tuple[command_clock.Ran, Watched]:
        request, uses_gpu = self.plan.request, self.plan.device == "cuda"
        began = time.monotonic()
        result = command_run.run(variant, self.place(variant.name, kind), request.timeout_s, uses_gpu)
        self.longest_s[variant.name] = time.monotonic() - began
        return result

    def _fail(self, name: str, error: MoeprofError) -> None:
        self.lost.add(name)
        self.problems.append(error)
        self.store.record(name, status="failed", reason=error.message)

    def _same_units(self) -> None:
        """A command that runs the region more or less often than the baseline does not do the same work in each."""
        baseline = self.commands.baseline.name
        for variant in self.commands.variants:
            name, usual = variant.name, self.units.get(baseline)
            if name not in self.lost and baseline not in self.lost and self.units.get(name) != usual:
                clock = self.commands.clock
                wrong = (
                    f"{name} has {self.units[name]} times of {clock.what!r} a run, {baseline} has {usual}: one is not the same "
                    "work in both"
                )
                self.store.record(name, proof=Proof(False, f"times of {clock.what!r} a run", None, 0.0, wrong))
                option = "unit" if clock.kind == "region" else "time"
                hint = f"mark equal work, or time the whole run (without --{option})"
                self._fail(name, WorkloadError(wrong, hint))

    def _file(self, variant: CommandVariant, check: Check) -> Path:
        """The file that a variant's run wrote: below its ``{out}``, else below its folder."""
        file, place = check.files[variant.name], self.place(variant.name, "proof")
        below = place.out / file
        return below if below.exists() else (variant.folder or Path.cwd()) / file

    def _written(self, variant: CommandVariant, check: Check, began: float) -> None:
        """A file that was there before the run proves nothing."""
        file = self._file(variant, check)
        if not file.is_file():
            raise WorkloadError(
                f"{variant.name}: it wrote no {check.files[variant.name]}, which the check compares",
                "let it write the file below {out} (MOEPROF_OUT), or in the folder that it runs in",
            )
        if file.stat().st_mtime < began - 1:  # some file systems store whole seconds
            raise WorkloadError(
                f"{variant.name}: {check.files[variant.name]} is older than its run", "let each run write the file"
            )

    def _prove(self) -> None:
        """Compare each variant with the baseline; one that does other work fails."""
        check, baseline = self.commands.check, self.commands.baseline
        if check is None:
            self.store.note(note("not-proven"))
            for variant in self.commands.variants:
                self.progress.step(f"{variant.name} runs")
            return
        what = _what(check)
        self.store.update(checked=what)
        if baseline.name in self.lost:
            return
        self.store.record(baseline.name, proof=Proof(True, f"the reference of the check ({what})", None, 0.0))
        for variant in self.commands.variants:
            if variant is baseline or variant.name in self.lost:
                continue
            try:
                proof = self._proof(check, variant)
            except MoeprofError as error:
                self._fail(variant.name, error)
                continue
            self.store.record(variant.name, proof=proof)
            if proof.ok:
                self.progress.step(f"{variant.name} does the work of {baseline.name}: {proof.checked}")
            else:
                wrong = f"{variant.name} does not do the work of {baseline.name}: {proof.reason}"
                self._fail(variant.name, WorkloadError(wrong, "it is not timed"))

    def _proof(self, check: Check, variant: CommandVariant) -> Proof:
        baseline, log = self.commands.baseline, self.store.log(variant.name, "check")
        if check.command:
            folders = {
                name: str(self.place(v.name, "proof").out)
                for name, v in (("baseline", baseline), ("candidate", variant))
            }
            argv = tuple(_filled(word, folders) for word in check.command)
            status = command_run.step("the check", argv, None, log, self.plan.request.timeout_s, {})
            ended = f"the check ended with {command_run.how_it_ended(status)}"
            reason = "" if status == 0 else f"{ended}; it last printed: {command_run.last_line(log)}"
            return Proof(status == 0, _what(check), None, 0.0, reason)
        argv = (
            sys.executable, "-P", "-m", "moeprof.worker.compare_outputs", str(self._file(baseline, check)), str(self._file(variant, check)),
            *(() if check.tolerance is None else ("--tolerance", repr(check.tolerance))),
        )  # fmt: skip
        status = command_run.step("the comparison of files", argv, None, log, COMPARE_S, {})
        text = log.read_text(encoding="utf-8", errors="replace")
        if status:
            raise WorkloadError(f"{variant.name} cannot be checked: {command_run.last_line(log)}", f"read {log}")
        return decode(Proof, json.loads(text[text.index("{") :]))

    def _time(self, variants: list[CommandVariant]) -> None:
        """Rounds of all variants."""

        def failed(name: str, error: MoeprofError) -> None:
            servers.pop(name)
            self._fail(name, error)

        servers: dict[str, Any] = {v.name: v for v in variants}
        timing = CommandRounds(self._request(variants), self.store, self.progress, Workers(servers, None, ()), failed)
        timing.clean = self
        self.store.record(self.commands.baseline.name, twin_process=True)
        timing.run()

    def _request(self, variants: list[CommandVariant]) -> Any:
        """The request with a number of rounds, where its budget holds fewer than a first look at the verdicts needs. The number
        is decided before anything is timed."""
        request = self.plan.request
        if request.rounds:
            return request
        budget_s = request.budget_s or BUDGET_S
        round_s = sum(self.longest_s[v.name] for v in variants) + self.longest_s[self.commands.baseline.name]
        fit = int(budget_s / max(round_s, 1e-3))
        if fit >= LOOKS[0]:
            return replace(request, budget_s=budget_s)
        if fit < MIN_ROUNDS:
            self.store.note(
                note("few-rounds", round_s=round_s, budget_s=budget_s, rounds=max(fit, 1), needed=MIN_ROUNDS)
            )
        return replace(request, budget_s=None, rounds=max(fit, 1))


@dataclass
class CommandRounds(Timing):
    """Rounds in which each variant's command runs once, the baseline's twice."""

    clean: CommandsClean = field(init=False)

    def phase(self, name: str, index: int, position: int) -> Round | None:
        """One run of a command, and the machine's state meanwhile; None where it failed."""
        baseline, commands = self.store.manifest.baseline, self.clean.commands
        server_name = name if name in self.workers.servers else str(baseline)
        variant: Any = self.workers.servers.get(server_name)
        if variant is None or (server_name != name and name != TWIN.format(baseline)):
            return None
        try:
            ran, watched = self.clean._run(variant, "timed")
            times = command_clock.times_ns(ran, commands.clock, commands.warm_up_steps)
        except MoeprofError as error:
            self.lost(server_name, error)
            return None
        return Round(index, position, times, watched.gpu, watched.others_cores)


def _what(check: Check) -> str:
    """The check in words."""
    if check.command:
        return f"`{' '.join(check.command)}` ends with 0"
    files = " and ".join(dict.fromkeys(str(file) for file in check.files.values()))
    return f"{files}: {'equal' if check.tolerance is None else f'equal within {check.tolerance:g}'}"


def _filled(word: str, folders: dict[str, str]) -> str:
    for name, folder in folders.items():
        word = word.replace(f"{{{name}}}", folder)
    return word


def trace_jobs(plan: Plan, store: Store, variants: list[CommandVariant]) -> tuple[list[Job], tuple[Any, ...]]:
    """The process that traces each variant, and notes on those that no tracer here can trace."""
    jobs, notes = [], []
    if plan.tracer == "none":
        return [], ()
    for variant in variants:
        try:
            jobs.append(_trace(plan, store, variant))
        except (ToolError, UsageError) as error:
            notes.append(note("no-trace", variant=variant.name, why=error.message))
    return jobs, tuple(notes)


def _trace(plan: Plan, store: Store, variant: CommandVariant) -> Job:
    tool: ToolName = "torch" if plan.nsys is None else "nsys"
    scratch, name = store.scratch.resolve(), variant.name
    out = scratch / f"{name}{'-kineto.json' if plan.nsys is None else '.nsys-rep'}"
    place = _traced_place(store, name)
    files = Files(out, scratch / f"{name}-trace.json", scratch / f"{name}-trace.gate", store.log(name, tool))
    words = command_run.words(variant, place)
    if plan.nsys is not None:
        run = ToolRun(Nsys(plan.nsys.path, out, region=False), words, out, plan.request.timeout_s)
    else:
        interpreter_words = interpreter.of_program(words, PACKAGES)
        run = commands.trace_program(
            replace(plan, request=replace(plan.request, program=words), interpreter=interpreter_words), files
        )
    run = replace(run, environment=command_run.environment(variant, place), folder=variant.folder)
    return Job(name, tool, run, None, files.result)


def _traced_place(store: Store, name: str) -> Place:
    return Place(store.scratch.resolve() / "runs" / f"{name}-traced", store.log(name, "clean"))


def dry_run(plan: Plan, store: Store) -> list[str]:
    """The commands that a capture would run, each under a comment that names it."""
    assert plan.request.commands is not None
    lines = []
    for variant in plan.request.commands.variants:
        twice = " (twice per round)" if variant is plan.request.commands.baseline else ""
        lines += [f"# {variant.name}: clean timing{twice}", variant.text]
    jobs, notes = trace_jobs(plan, store, list(plan.request.commands.variants))
    for job in jobs:
        lines += [f"# {job.name}: {job.tool}", commands.printed(job.run.command.argv)]
    return lines + [f"# {n.text}" for n in notes]
