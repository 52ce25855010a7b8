"""A request becomes a plan: device, tools, ranks and parameters, decided once; the processes that follow from a plan."""

from __future__ import annotations

import importlib.util
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.command_line import FAKES

from moeprof.capture import commands, manifest_builder
from moeprof.capture.clean_timing import clean_processes
from moeprof.capture.jobs import profiling_jobs
from moeprof.capture.plan import Plan, make_plan
from moeprof.capture.program import interpreter
from moeprof.capture.program.capture import planned
from moeprof.capture.program.interpreter import Interpreter
from moeprof.capture.program.window import Window
from moeprof.capture.request import Request
from moeprof.errors import ToolError, UsageError
from moeprof.machine import ncu_query, nvml, tools
from moeprof.machine.tools import Tool
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Gpu
from moeprof.worker import spec

SLEEPER, RANKED = str(FAKES / "workload.py"), str(FAKES / "ranked_workload.py")
RANKS_OF_MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, nsys, ncu and torch."""
    monkeypatch.setattr(nvml, "gpus", lambda: (Gpu(0, "H200"), Gpu(1, "H200")))
    monkeypatch.setattr(tools, "find", lambda name, given=None: Tool(name, given or Path("/opt") / name, "1"))
    monkeypatch.setattr(ncu_query, "roofline_metrics", lambda ncu: (("flops.sum",), ()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)


def store(plan: Plan, folder: Path) -> Store:
    return Store(folder / "cap", manifest_builder.manifest(plan))


def test_a_workload_on_a_gpu_is_traced_by_nsys_and_counted_by_ncu() -> None:
    plan = make_plan(Request(SLEEPER, variants=("slow", "fast"), overrides={"stages": "9"}), {})
    assert (plan.name, plan.device, plan.tracer, plan.preset) == ("sleeper", "cuda", "nsys", "default")
    assert plan.params == {"stages": 9, "seed": 3} and list(plan.targets) == ["slow", "fast"] and plan.team is None
    assert plan.counting is not None and (plan.counting.kernels, plan.counting.roofline) == (3, ("flops.sum",))
    assert not plan.notes


@pytest.mark.parametrize(
    ("given", "tracer", "counts", "notes"),
    [
        ({}, "nsys", True, []), ({"tools": ("none",)}, "none", False, ["timing-only"]), ({"tools": ("torch",)}, "torch", False, []),
        ({"tools": ("torch", "ncu")}, "torch", True, []), ({"device": "cpu"}, "torch", False, ["no-gpu"]),
    ],
)  # fmt: skip
def test_the_tools_of_a_plan(given: dict[str, Any], tracer: str, counts: bool, notes: list[str]) -> None:
    plan = make_plan(Request(SLEEPER, **given), {})
    assert (plan.tracer, plan.counting is not None, [note.id for note in plan.notes]) == (tracer, counts, notes)


def test_without_tools_torch_traces_and_nothing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda name, given=None: None)
    plan = make_plan(Request(SLEEPER), {})
    assert plan.tracer == "torch" and plan.counting is None and [n.id for n in plan.notes] == ["no-nsys", "no-ncu"]
    for tool in ("nsys", "ncu"):
        with pytest.raises(ToolError, match=f"{tool} was asked for and is not here"):
            make_plan(Request(SLEEPER, tools=(tool,)), {})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"tools": ("gdb",)}, UsageError, "does not fit"), ({"tools": ("none", "ncu")}, UsageError, "does not fit"),
        ({"tools": ("nsys", "torch")}, UsageError, "does not fit"), ({"rounds": 4, "budget_s": 9.0}, UsageError, "exclude each other"),
        ({"overrides": {"nothing": "1"}}, UsageError, "no parameter 'nothing'"), ({"variants": ("none",)}, UsageError, "no variant 'none'"),
        ({"preset": "huge"}, UsageError, "no preset 'huge'"), ({"nproc": 2}, UsageError, "runs in one process"),
        ({"device": "cpu", "tools": ("nsys",)}, ToolError, "nsys needs a CUDA GPU"),
        ({"workload": RANKED, "tools": ("nsys", "ncu")}, UsageError, "ncu cannot count 2 ranks"),
        ({"workload": RANKED, "nproc": 3}, ToolError, "3 ranks need 3 GPUs"),
        ({"window": Window(duration_s=1.0)}, UsageError, "are for programs"), ({"nsys_args": ("-b",)}, UsageError, "are for programs"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make_plan(Request(**{"workload": SLEEPER} | given), {})


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "gpus", lambda: ())
    with pytest.raises(ToolError, match="there is no CUDA GPU here"):
        make_plan(Request(SLEEPER, device="cuda"), {})
    assert make_plan(Request(SLEEPER), {}).device == "cpu"


@pytest.mark.parametrize("environment", [{}, RANKS_OF_MPIRUN])
def test_several_ranks_are_traced_and_not_counted(environment: dict[str, str]) -> None:
    plan = make_plan(Request(RANKED), environment)
    assert plan.team is not None and plan.team.layout == (2,) and plan.local_ranks == 2
    assert plan.tracer == "nsys" and plan.counting is None and [n.id for n in plan.notes] == ["no-ncu"]
    alone = make_plan(Request(RANKED, nproc=1), {})
    assert alone.team is not None and alone.team.ranks == 1 and alone.counting is not None


def test_each_variant_has_a_clean_process_and_the_baseline_two() -> None:
    plan = make_plan(Request(SLEEPER, variants=("fast", "slow")), {})
    assert [(p.name, p.kind) for p in clean_processes(plan)] == [
        ("fast", "clean"),
        ("slow", "clean"),
        ("slow (twin)", "twin"),
    ]
    without = make_plan(Request(SLEEPER, variants=("fast",)), {})
    assert [p.name for p in clean_processes(without)] == ["fast"]


def test_what_traces_comes_before_what_counts(tmp_path: Path) -> None:
    plan = make_plan(Request(SLEEPER, variants=("slow", "fast"), iterations=5, ncu_kernels=7), {})
    jobs = profiling_jobs(plan, store(plan, tmp_path), plan.targets.values())
    assert [(j.name, j.tool, j.run.iterations) for j in jobs] == [
        ("slow", "nsys", 5), ("fast", "nsys", 5), ("slow", "ncu", 1), ("fast", "ncu", 1),
    ]  # fmt: skip
    argv = jobs[2].run.command.argv
    assert (
        argv[argv.index("--launch-count") + 1] == "7" and argv[argv.index("--nvtx-include") + 1] == "moeprof@measure/"
    )
    bare = jobs[2].run.without_roofline().command.argv
    assert [word.replace(",flops.sum", "") for word in argv] == list(bare) != list(argv)


def test_a_program_is_traced_whole_and_counted_only_if_asked_for(tmp_path: Path) -> None:
    plan = make_plan(Request(program=("./train", "--fast")), {})
    [(_, job)] = planned(plan, store(plan, tmp_path))
    argv = job.run.command.argv
    assert (job.name, job.tool, job.gate, job.run.iterations) == ("program", "nsys", None, None)
    assert argv[-2:] == ("./train", "--fast") and "--capture-range=cudaProfilerApi" not in argv
    assert "--kill=none" in argv and "--start-later=true" not in argv, "nsys never kills a program"
    counted = make_plan(Request(program=("./train",), tools=("ncu",)), {})
    [(_, count)] = planned(counted, store(counted, tmp_path))
    assert count.tool == "ncu" and "--nvtx" not in count.run.command.argv


def test_a_programs_options_of_nsys_replace_those_of_the_capture(tmp_path: Path) -> None:
    window = Window(start_after_s=3.0)
    request = Request(
        program=("./train",), window=window, nsys_args=("-t", "cuda,osrt", "--sample=cpu"), fork_before_exec=True
    )
    plan = make_plan(request, {})
    [(_, job)] = planned(plan, store(plan, tmp_path))
    argv = job.run.command.argv
    assert argv[argv.index("-t") : argv.index("-t") + 3] == ("-t", "cuda,osrt", "--sample=cpu")
    assert not {"--trace=cuda,nvtx", "--sample=none"} & set(argv) and "--cpuctxsw=none" in argv
    assert "--start-later=true" in argv and "--trace-fork-before-exec=true" in argv


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (("p.py", "a"), ("p.py", "a")), (("python3", "p.py"), ("p.py",)), (("python", "-u", "p.py"), ("p.py",)),
        (("python", "-m", "json.tool"), ("-m", "json.tool")), (("python", "-X", "dev", "-c", "1", "x"), ("-c", "1", "x")),
    ],
)  # fmt: skip
def test_a_python_program_runs_in_a_worker_under_torch_profiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...], command: tuple[str, ...]
) -> None:
    found = Interpreter("3.12", "/venv/bin/python", torch=True, moeprof=True)
    monkeypatch.setattr(interpreter, "of_program", lambda words, packages: found)
    plan = make_plan(Request(program=program, tools=("torch",)), {})
    [(_, job)] = planned(plan, store(plan, tmp_path))
    argv = job.run.command.argv
    assert argv[0] == "/venv/bin/python" and argv[argv.index("--") + 1 :] == command
    assert argv[1 : argv.index("-P")] == program[1 : program.index(command[0])] if program[0] != "p.py" else True
    other = make_plan(Request(program=("./train",), tools=("torch",)), {})
    with pytest.raises(ToolError, match=r"torch\.profiler cannot trace './train'"):
        list(planned(other, store(other, tmp_path)))


@pytest.mark.parametrize("lacks", ["torch", "moeprof"])
def test_a_python_without_torch_or_moeprof_cannot_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    found = replace(Interpreter("3.12", "/venv/bin/python", torch=True, moeprof=True), **{lacks: False})
    monkeypatch.setattr(interpreter, "of_program", lambda words, packages: found)
    plan = make_plan(Request(program=("python", "p.py"), tools=("torch",)), {})
    with pytest.raises(ToolError, match=f"/venv/bin/python has no {lacks}"):
        list(planned(plan, store(plan, tmp_path)))


def test_a_printed_command_has_the_whole_spec_and_is_what_a_shell_would_run(tmp_path: Path) -> None:
    plan = make_plan(Request(SLEEPER, variants=("slow",)), {})
    job = profiling_jobs(plan, store(plan, tmp_path), plan.targets.values())[0]
    argv = job.run.command.argv
    printed = commands.printed(argv)
    assert '\n "mode": "measure",\n' in printed
    words = shlex.split(printed)
    at = words.index("--spec") + 1
    assert json.loads(words[at]) == json.loads(argv[at]) and [*words[:at], *words[at + 1 :]] == [
        *argv[:at],
        *argv[at + 1 :],
    ]


def test_a_kept_command_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    plan = make_plan(Request(SLEEPER, variants=("slow",)), {})
    where = store(plan, tmp_path)
    job = profiling_jobs(plan, where, plan.targets.values())[0]
    shown = commands.shown(job.run.command.argv, where.scratch, where.folder)
    assert shown[0] == "nsys" and str(tmp_path) not in " ".join(shown)
    read = spec.read(shown[shown.index("--spec") + 1])
    assert (
        read.measurement is not None
        and read.measurement.result == "slow-trace.json"
        and read.log == "logs/slow-nsys.log"
    )
