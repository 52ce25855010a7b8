"""The gate: twelve situations with their exit codes, and which sides it compares."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemas
from builders.sample_captures import Ran, another_gpu, around, made, timed, variant
from paths import ROOT
from schemas import valid

from moeprof.gate import gate
from moeprof.gate.gate import Side
from moeprof.loaded import capture as study
from moeprof.storage.manifest import Gpu, Round, VariantRecord
from moeprof.workload.model import Proof

DOCS = "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reference/gate.md", "howto/check_in_ci.md")
)
TIME = 20e6
Run = Callable[..., Ran]


# ---- the situations of docs/reference/gate.md


def situation(name: str, folder: Path) -> list[str]:
    """Make the captures of a situation; the words after ``check``."""
    times = lambda factor, spread=0.001: timed("graph", around(factor * TIME, spread, seed=int(100 * factor)))  # noqa: E731
    light = name not in ("exact count grown", "exact count same")
    base = made(folder / "base", times(1.0), light=light)
    wrong = variant("graph", lambda v: replace(v, status="failed", proof=Proof(False, "all", 1.0, 0.01, "zeros")))
    changes = {
        "clear regression": [times(1.1)], "clear improvement": [times(0.9)], "unclear pass": [times(1.03, 0.03)], "unclear fail": [times(1.03, 0.03)],
        "unlike captures": [times(1.1), another_gpu], "failed proof": [wrong],
    }.get(name, [times(1.0)])  # fmt: skip
    if (
        name == "exact count grown"
    ):  # the parts of the baseline, which launches one by one, stand for those of the graph
        eager = study.load(base).manifest.variant("baseline")
        assert eager is not None
        changes.append(variant("graph", lambda v: replace(v, parts=eager.parts)))
    now = folder / "gone" if name == "missing capture" else made(folder / "now", *changes, light=light)
    rule = {
        "exact count grown": "launches>+0", "exact count same": "launches>+0", "missing metric": "launches>+0", "bad rule": "step_time>>3",
    }.get(name, "step_time>3%")  # fmt: skip
    asked = ["--on-unclear", "fail"] if name == "unclear fail" else []
    return [str(now), "--against", str(base), "--fail-on", rule, *asked]


SITUATIONS = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| (\w+|–) \| (\d) \|$", DOCS, flags=re.M)


def test_the_docs_list_twelve_situations() -> None:
    assert len(SITUATIONS) == len({name for name, _, _ in SITUATIONS}) == 12


@pytest.mark.parametrize(("name", "state", "code"), SITUATIONS, ids=[s[0] for s in SITUATIONS])
def test_a_situation_ends_as_the_docs_say(command: Run, tmp_path: Path, name: str, state: str, code: str) -> None:
    words = situation(name, tmp_path)
    ran = command("check", *words)
    assert ran.code == int(code), ran.out + ran.err
    assert "Traceback" not in ran.err
    if state == "–":
        assert ran.err.startswith("error: ") and not ran.out
    else:
        assert re.search(rf"\b1 {state}\b", ran.out), ran.out
        found = json.loads(command("check", *words, "--json").out)
        assert [o["state"] for o in found["outcomes"]] == [state] and found["failed"] == (code == "3")
        assert valid(found, schemas.CHECK) == []


def test_what_a_situation_says(command: Run, tmp_path: Path) -> None:
    grown = command("check", *situation("exact count grown", tmp_path / "a"))
    assert "+95" in grown.out and "exact" in grown.out
    missing = command("check", *situation("missing metric", tmp_path / "b"))
    assert "unknown in" in missing.words and "there is no" in missing.words
    unlike = command("check", *situation("unlike captures", tmp_path / "c"))
    assert unlike.out.startswith("the two captures differ in GPU: NVIDIA H200 and NVIDIA L4")  # before any number
    wrong = command("check", *situation("bad rule", tmp_path / "d"))
    assert "step_time>>3" in wrong.err and wrong.err.count("\n") == 2
    proof = command("check", *situation("failed proof", tmp_path / "e"))
    assert "the output of graph is wrong: zeros" in proof.err


def test_the_commands_of_the_actions_snippet_run_as_they_stand(command: Run, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.S)
    commands = [line.partition("run: ")[2] for line in snippet.splitlines() if "run: moeprof" in line]
    commands = [c.replace('"$BASELINES"', str(tmp_path / "kept")) for c in commands]
    capture, *checks, keep = commands
    assert "-o capture" in capture
    made(tmp_path / "capture")
    for line in (f"{capture} --dry-run --device cpu --tools none", keep, keep, *checks):
        ran = command(*shlex.split(line)[1:])
        assert ran.code == 0, ran.out + ran.err
    written = re.findall(r"[\w.]+\.(?:md|xml|sarif)\b", " ".join(checks))
    assert len(written) == 5 and all((tmp_path / name).stat().st_size for name in written)
    assert re.findall(r"cat ([\w. ]+) >>", snippet) == ["times.md counts.md"]


# ---- which sides are compared


def test_without_against_the_default_baseline_then_the_captures_own_is_compared(command: Run, tmp_path: Path) -> None:
    now = made(tmp_path / "now", light=True)
    rule = ("--fail-on", "step_time>3%")
    assert f"{now}, graph against {now}, baseline" in command("check", now, *rule).words
    command("baseline", "save", "main", now)
    assert f"against {now}, baseline" in command("check", now, *rule).words  # saved, but not chosen
    command("baseline", "use", "main")
    assert "against baseline main, graph" in command("check", now, *rule).words
    assert "against baseline main, overlap" in command("check", now, "--variant", "overlap", *rule).words
    (tmp_path / "main").mkdir()  # a name goes before a path
    assert "against baseline main, graph" in command("check", now, "--against", "main", *rule).words
    assert command("check", now, "--against", "./main", *rule).code == 1


def test_own_variants_are_paired_and_two_captures_are_not(tmp_path: Path) -> None:
    """Rounds that swing together tell a small change only where they were interleaved."""
    swing = 1 + 0.05 * np.sin(np.arange(12))
    together = [
        timed("baseline", [[TIME * s] * 5 for s in swing]),
        timed("graph", [[TIME * 1.02 * s] * 5 for s in swing]),
    ]
    both = study.load(made(tmp_path / "both", *together, light=True))
    rule = gate.rules(["step_time>1%"])
    own = gate.check(Side(both, "graph", "now"), Side(both, "baseline", "now"), rule, "pass")
    other = gate.check(Side(both, "graph", "now"), Side(study.load(both.folder), "baseline", "base"), rule, "pass")
    (paired,), (apart,) = own.outcomes, other.outcomes
    assert paired.found is not None and apart.found is not None
    assert paired.found.high - paired.found.low < 1e-5 and apart.found.high - apart.found.low > 1
    assert (paired.state, apart.state) == ("UNCLEAR", "UNCLEAR")  # A against A is 5 % here


def test_the_noise_of_a_capture_is_that_of_its_twins_and_disturbed_rounds_do_not_count(tmp_path: Path) -> None:
    """A twin that is 5 % off makes 3 % unclear; rounds that something disturbed would make it worse by half."""
    rule = gate.rules(["step_time>1%"])
    calm = [
        timed("baseline", around(TIME, 0.0005, rounds=12)),
        timed("graph", around(1.03 * TIME, 0.0005, rounds=12, seed=1)),
    ]
    rounds = tuple(Round(i, 0, tuple(int(t) for t in r)) for i, r in enumerate(around(1.05 * TIME, 0.0005, 12, seed=2)))
    twin = variant("baseline", lambda v: replace(v, twin=rounds))

    def shaken(record: VariantRecord) -> VariantRecord:
        return replace(record, rounds=(*record.rounds, *(Round(12 + i, 0, (int(1.5 * TIME),) * 5, disturbed=("heat",), used=False) for i in range(12))))  # fmt: skip

    def judged(name: str, *changes: Any) -> gate.Outcome:
        both = study.load(made(tmp_path / name, *calm, *changes, light=True))
        (found,) = gate.check(Side(both, "graph", "now"), Side(both, "baseline", "now"), rule, "pass").outcomes
        return found

    quiet, noisy, disturbed = judged("quiet"), judged("noisy", twin), judged("disturbed", variant("graph", shaken))
    assert quiet.state == "FAIL" and quiet.noise == 1
    assert noisy.state == "UNCLEAR" and noisy.noise == pytest.approx(5, abs=0.3)
    assert (disturbed.state, disturbed.after, disturbed.found) == ("FAIL", quiet.after, quiet.found)


def test_less_than_a_percent_is_no_evidence(tmp_path: Path) -> None:
    """0.8 %, beyond all noise that rounds show: two processes of one program differ by as much."""
    rule = gate.rules(["step_time>0%"])
    times = [
        timed("baseline", around(TIME, 1e-5, rounds=12)),
        timed("graph", around(1.008 * TIME, 1e-5, rounds=12, seed=1)),
    ]
    now = study.load(made(tmp_path / "now", *times, light=True))
    base = study.load(made(tmp_path / "base", timed("graph", around(TIME, 1e-5, rounds=12)), light=True))
    (own,) = gate.check(Side(now, "graph", "now"), Side(now, "baseline", "now"), rule, "pass").outcomes
    (other,) = gate.check(Side(now, "graph", "now"), Side(base, "graph", "base"), rule, "pass").outcomes
    assert (own.state, other.state) == ("UNCLEAR", "UNCLEAR") and own.noise == other.noise == 1


def test_another_checkout_is_what_a_gate_compares_and_another_clock_is_not(command: Run, tmp_path: Path) -> None:
    """The commit differs in every pull request: it is told and forbids nothing."""

    def clocked(mhz: int) -> Any:
        gpu = Gpu(0, "NVIDIA H200", sm_clock_mhz=mhz)
        return variant("graph", lambda v: replace(v, rounds=tuple(replace(r, gpu=gpu) for r in v.rounds)))

    base = made(
        tmp_path / "base", timed("graph", around(TIME)), clocked(1980), lambda m: replace(m, git="aaa"), light=True
    )
    slow = [timed("graph", around(1.1 * TIME, seed=1)), lambda m: replace(m, git="bbb")]
    rule = ("--against", base, "--fail-on", "step_time>3%", "--json")
    found = json.loads(command("check", made(tmp_path / "now", *slow, clocked(1975), light=True), *rule).out)
    assert found["failed"] and (found["git"], found["against_git"], found["unlike"]) == ("bbb", "aaa", [])
    found = json.loads(command("check", made(tmp_path / "slow", *slow, clocked(1500), light=True), *rule).out)
    assert found["outcomes"][0]["state"] == "UNCLEAR" and "SM clock" in found["outcomes"][0]["reason"]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (variant("graph", lambda v: replace(v, status="failed", reason="it crashed")), 5, "graph failed: it crashed"),
        (variant("graph", lambda v: replace(v, status="pending")), 1, "is not complete"),
        (lambda m: replace(m, complete=False), 1, "is not complete"),
        (lambda m: replace(m, baseline=None), 2, "nothing to compare graph with"),
        (variant("graph", lambda v: replace(v, status="skipped", reason="needs two GPUs", rounds=())), 0, "SKIPPED: needs two GPUs"),
    ],
)  # fmt: skip
def test_a_capture_that_cannot_be_judged(command: Run, tmp_path: Path, change: Any, code: int, said: str) -> None:
    ran = command("check", made(tmp_path / "now", change, light=True), "--fail-on", "step_time>3%")
    assert ran.code == code and said in ran.words, ran.out + ran.err


def test_a_baseline_that_failed_is_named_and_one_that_lacks_the_variant_is_unclear(
    command: Run, tmp_path: Path
) -> None:
    now = made(tmp_path / "now", light=True)
    bad = made(tmp_path / "bad", variant("graph", lambda v: replace(v, status="failed", reason="crash")), light=True)
    old = made(tmp_path / "old", lambda m: replace(m, variants=m.variants[:1]), light=True)
    ran = command("check", now, "--against", bad, "--fail-on", "step_time>3%")
    assert ran.code == 5 and str(bad) in ran.err
    assert command("check", now, "--against", bad, "--fail-on", "step_time>100").code == 0  # compares nothing
    ran = command("check", now, "--against", old, "--fail-on", "step_time>3%")
    assert ran.code == 0 and "has no variant 'graph'" in ran.words and "1 UNCLEAR" in ran.out


@pytest.mark.parametrize(
    ("change", "times", "counts"),
    [
        (another_gpu, "UNCLEAR", "PASS"),
        (lambda m: replace(m, environment=replace(m.environment, torch="9.9")), "UNCLEAR", "PASS"),
        (lambda m: replace(m, params=m.params | {"layers": 16}), "UNCLEAR", "UNCLEAR"),
        (lambda m: m, "PASS", "PASS"),
    ],
)
def test_unlike_captures(tmp_path: Path, change: Any, times: str, counts: str) -> None:
    now, base = (study.load(made(tmp_path / n, *c)) for n, c in (("now", [change]), ("base", [])))
    found = gate.check(Side(now, "graph", "now"), Side(base, "graph", "base"), gate.rules(["step_time>3%", "idle>50%", "launches>+0", "step_time>50"]), "pass")  # fmt: skip
    assert [o.state for o in found.outcomes] == [times, times, counts, "PASS"]  # the value itself compares nothing
