"""Every kind of page that moeprof writes, made from what ships and from small captures, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from builders.sample_captures import around, made, timed
from fakes.command_line import moeprof

from moeprof import resources
from moeprof.loaded.pytest_run import Case, Run
from moeprof.notes import note
from moeprof.report import build, html, pytest_run
from moeprof.storage.manifest import Manifest
from moeprof.testing.fixture import Moeprof
from moeprof.testing.log import Log

FAULTY, FIXED = "item_in_loop", "item_in_loop_fixed"
SORTING = """
import bisect, json, os, random, sys
random.seed(1)
numbers = [random.random() for _ in range(100_000)]
if sys.argv[1] == "insort":
    result = []
    for number in numbers:
        bisect.insort(result, number)
else:
    result = sorted(numbers)
with open(os.environ["MOEPROF_OUT"] + "/sorted.json", "w") as file:
    json.dump(result, file)
"""
LIMITS = {"test_a_step_launches_few_kernels": 60, "test_a_step_never_waits": 0, "test_a_step_runs_few_kernels": 60}


@dataclass(frozen=True)
class Kind:
    """A kind of page.

    Args:
        name: of its file.
        title: what the page is of.
        command: what writes such a page.
        answers: what the reader learns from it, one line.
        write: writes one to a path; the folder of the path is its own to work in.
    """

    name: str
    title: str
    command: str
    answers: str
    write: Callable[[Path], None]


def _moeprof(path: Path, *words: str | Path) -> None:
    ran = moeprof(*map(str, words), "-o", str(path), cwd=path.parent)
    assert path.is_file(), ran.stderr


def _sample(name: str) -> Callable[[Path], None]:
    return lambda path: _moeprof(path, "report", "--sample", name)


def _trace(path: Path) -> None:
    _moeprof(path, "report", build.unpacked(FAULTY, path.parent))


def _program(path: Path) -> None:
    """A sample's baseline, as if the user had captured it."""

    def of_a_program(manifest: Manifest) -> Manifest:
        record = next(v for v in manifest.variants if v.name == "baseline")
        only = (replace(record, name="program", rounds=(), proof=None),)
        argv = ("moeprof", "capture", "--", "python", "serve.py")
        return replace(manifest, kind="program", name="serve", argv=argv, variants=only, baseline=None, optimized=None)

    _moeprof(path, "report", made(path.parent / "serve-001", of_a_program))


def _two_captures(path: Path) -> None:
    """A capture, and one of the same workload whose graph takes a tenth longer."""
    before = made(path.parent / "before")
    _moeprof(path, "report", before, made(path.parent / "after", timed("graph", around(19.2e6))))


def _two_traces(path: Path) -> None:
    _moeprof(path, "report", *(build.unpacked(name, path.parent) for name in (FAULTY, FIXED)))


def _commands(path: Path) -> None:
    """Two commands that sort the same numbers, run on this CPU."""
    (path.parent / "sort.py").write_text(SORTING, encoding="utf-8")
    variants = [word for way in ("insort", "sorted") for word in ("--variant", f"{way}=python3 sort.py {way}")]
    check = ("--check-file", "sorted.json")
    ran = moeprof("capture", *variants, *check, "--tools", "none", "--device", "cpu", "-o", "sorting", cwd=path.parent)
    assert (path.parent / "sorting").is_dir(), ran.stderr
    _moeprof(path, "report", "sorting")


def _functional_check(path: Path) -> None:
    """A GPU technique captured on a CPU, where speed means nothing."""

    def on_a_cpu(manifest: Manifest) -> Manifest:
        return replace(manifest, device="cpu", notes=(note("functional-check", what=manifest.name),))

    _moeprof(path, "report", made(path.parent / "kv_transfer-001", on_a_cpu))


def _ranks(path: Path) -> None:
    _moeprof(path, "ranks", "--variant", "baseline", resources.shipped("samples", "expert_parallel"))


def _session(path: Path) -> None:
    _moeprof(path, "session", "report", "--sample", "first_investigation")


def _history(path: Path) -> None:
    """Twelve captures; from the eighth on the variant takes 6 % longer."""
    folders = [_dated(path.parent / f"capture-{n:02}", n, 17.43e6 * (1.06 if n > 7 else 1)) for n in range(1, 13)]
    _moeprof(path, "history", *folders)


def _dated(folder: Path, day: int, time_ns: float) -> Path:
    def dated(manifest: Manifest) -> Manifest:
        return replace(manifest, created=f"2026-11-{day:02}T09:00:00+00:00", git=f"{0x3C41A7F + 7919 * day:07x}")

    return made(folder, timed("graph", around(time_ns, seed=day)), dated, light=True)


def _pytest(path: Path) -> None:
    """Three tests over a recorded trace: one fails."""
    trace = build.unpacked(FAULTY, path.parent)
    cases = tuple(_case(test, limit, trace) for test, limit in LIMITS.items())
    path.write_text(html.render(pytest_run.page(Run("0", cases))), encoding="utf-8")


def _case(test: str, limit: int, trace: Path) -> Case:
    events, outcome = Log(), "passed"
    work = Moeprof(events, trace.parent).read(trace, range_name="step")
    try:
        {"launch": work.launches, "never": work.sync_calls}.get(test.split("_")[3], work.kernels)(at_most=limit)
    except AssertionError:
        outcome = "failed"
    case = events.case(f"tests/test_model.py::{test}", outcome, "")
    assert case is not None
    return case


KINDS = (
    Kind("trace", "one trace", "moeprof report TRACE", "What keeps this GPU from working, and what to try first?", _trace),
    Kind("program", "the capture of your program", "moeprof report CAPTURE", "The same for a program that moeprof captured.", _program),
    Kind("kv_transfer", "a workload's variants: copies", "moeprof report --sample kv_transfer", "Which variant is faster, by how much, and how far it is from the bound?", _sample("kv_transfer")),
    Kind("router", "a workload's variants: routing", "moeprof report --sample router", "Which kernel decides, and does it do useful work?", _sample("router")),
    Kind("decode_attention", "a workload's variants: attention", "moeprof report --sample decode_attention", "What does each attention backend cost per token?", _sample("decode_attention")),
    Kind("expert_parallel", "a workload's variants: two GPUs", "moeprof report --sample expert_parallel", "How much communication is exposed, and what hides it?", _sample("expert_parallel")),
    Kind("mla_decode", "a workload's variants: MLA", "moeprof report --sample mla_decode", "What does fusing the latent attention save?", _sample("mla_decode")),
    Kind("counters", "a kernel's versions with counters", "moeprof report --sample decode_kernel", "Which resource limits each version of a kernel, by ncu's counters?", _sample("decode_kernel")),
    Kind("captures", "two captures of a workload", "moeprof report BEFORE AFTER", "Did the change help, beyond the noise, and which part of an iteration changed?", _two_captures),
    Kind("traces", "two traces", "moeprof report BEFORE AFTER", "What does the same work cost in each trace?", _two_traces),
    Kind("commands", "two commands", "moeprof capture --variant A=COMMAND --variant B=COMMAND; moeprof report", "Which of two commands is faster for the same result?", _commands),
    Kind("functional", "a GPU technique on a CPU", "moeprof capture WORKLOAD --device cpu; moeprof report", "Are the results right? Speed means nothing here, and no verdict is given.", _functional_check),
    Kind("ranks", "ranks", "moeprof ranks PATH -o PAGE", "Which rank do the others wait for, and why?", _ranks),
    Kind("session", "a session", "moeprof session report", "What was predicted, tried and kept, and what did it give?", _session),
    Kind("history", "a history", "moeprof history CAPTURE ... -o PAGE", "When did a metric change, and at which commit?", _history),
    Kind("pytest", "a pytest run", "pytest --moeprof-report PAGE", "Which assertions about GPU work failed, and what ran?", _pytest),
)  # fmt: skip
