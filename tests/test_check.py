"""The gate: twelve situations with their exit codes, how a rule is judged, and each form of the output."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import Ran, another_gpu, around, made, timed, variant
from hypothesis import given
from hypothesis import strategies as st

from moeprof import expectations, gate, measures, stats, study
from moeprof.codec import encode
from moeprof.errors import UsageError
from moeprof.expectations import Expectation
from moeprof.gate import Check, Side
from moeprof.judgement import bar, judge_change, judge_value
from moeprof.measures import Sample
from moeprof.notes import note
from moeprof.report import checked, junit, sarif
from moeprof.workload import Proof

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "check.schema.json").read_text())
TIME = 20e6
Run = Callable[..., Ran]


# ---- the situations of docs/check.md


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
        assert valid(found, SCHEMA) == []


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
    assert "against baseline main, overlap" in command("check", now, "--variant", "overlap", *rule).out
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


# ---- rules


@pytest.mark.parametrize(
    ("text", "metric", "fails"),
    [
        ("step_time>3%", "step_time", Expectation(">", 3.0, "%")), ("copy_overlap<0.9", "copy_overlap", Expectation("<", 0.9, "")),
        ("launches>+0", "launches", Expectation(">", 0.0, "+")), ("idle >= -2", "idle", Expectation(">=", -2.0, "+")),
        (" step_time <0.5x ", "step_time", Expectation("<", 0.5, "x")), ("kernel:f<int>>>-5%", "kernel:f<int>>", Expectation(">", -5.0, "%")),
        ("kernel:a<=b<=1.5", "kernel:a<=b", Expectation("<=", 1.5, "")), ("fact:dropped tokens>0", "fact:dropped tokens", Expectation(">", 0.0, "")),
    ],
)  # fmt: skip
def test_the_grammar(text: str, metric: str, fails: Expectation) -> None:
    (found,) = gate.rules([text])
    assert (found.metric, found.fails, found.text) == (metric, fails, text.strip())


@pytest.mark.parametrize(
    "text", ["step_time", "step_time>", ">3%", "step_time>3 %%", "step_time=3", "speed>3", "kernel:(>3", "kernel:>3", "step_time>>3", "step_time>nan", "", "x>1e400"]
)  # fmt: skip
def test_a_bad_rule_is_named_with_the_grammar_or_the_metrics(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        gate.rules([text])
    assert repr(text) in caught.value.message and caught.value.hint
    assert caught.value.hint == expectations.GRAMMAR or "known:" in caught.value.hint or "re" in caught.value.hint


# ---- judgement


def clean(mean: float, spread: float = 0.0005, seed: int = 0, rounds: int = 8, power: int = 1) -> Sample:
    times = [tuple(int(t) for t in r) for r in around(mean * 1e6, spread, rounds, seed)]
    time = stats.typical(times)
    assert time is not None
    return Sample(time / 1e6 if power == 1 else 1e7 / time, "clean", rounds=times, power=power)


@pytest.mark.parametrize(
    ("rule", "factor", "state"),
    [
        (">3%", 1.10, "FAIL"), (">3%", 1.0, "PASS"), (">3%", 0.5, "PASS"), (">3%", 1.03, "UNCLEAR"), (">1.03x", 1.10, "FAIL"), (">1.03x", 1.0, "PASS"),
        (">+1", 1.10, "FAIL"), (">+1", 1.0, "PASS"), ("<+0", 0.9, "FAIL"), (">-10%", 1.0, "FAIL"), (">-10%", 0.8, "PASS"), (">-10%", 0.9, "UNCLEAR"),
        ("<0.5x", 0.4, "FAIL"), ("<0.5x", 0.6, "PASS"), (">12", 1.0, "FAIL"), (">12", 0.5, "PASS"), ("<12", 0.5, "FAIL"), (">=0.1%", 1.002, "UNCLEAR"),
    ],
)  # fmt: skip
def test_rules_on_clean_times(rule: str, factor: float, state: str) -> None:
    """20 ms and ``factor`` of it; a throughput moves the other way, its rules are judged on the same times."""
    wanted = expectations.expectation(rule)
    for power in (1, -1) if wanted.unit in ("x", "%") else (1,):
        before, after = clean(20, seed=1, power=power), clean(20 * factor**power, seed=2, power=power)
        found = judge_change(wanted, before, after, False) if wanted.unit else judge_value(wanted, after)
        assert found.state == state, (power, found)


@pytest.mark.parametrize(("power", "unit"), [(1, "%"), (-1, "%"), (1, "x"), (1, "+")])
def test_the_interval_is_that_of_the_speed_up(power: int, unit: Any) -> None:
    """Turned for a time, as it is for a throughput; an uneven interval tells them apart."""
    uneven = [[1e6 * f] * 3 for f in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.3, 1.3)]
    before, after = (Sample(0.0, "clean", rounds=[tuple(map(int, r)) for r in rounds], power=power) for rounds in (around(1e6), uneven))  # fmt: skip
    before, after = (replace(s, value=(stats.typical(s.rounds) or 0) ** power) for s in (before, after))
    speed = stats.speedup(before.rounds, after.rounds, paired=False)
    found = judge_change(Expectation(">", 3.0, unit), before, after, False).found
    assert speed is not None and found is not None
    low, high = (1 / speed.high, 1 / speed.low) if power == 1 else (speed.low, speed.high)
    told = {"x": lambda r: r, "%": lambda r: 100 * (r - 1), "+": lambda r: before.value * (r - 1)}[unit]
    assert (found.low, found.high) == pytest.approx((told(low), told(high)))


def test_times_beyond_the_threshold_but_not_beyond_the_noise_are_unclear() -> None:
    """Slow rounds and fast ones in turn: the halves of A against A differ by 10 %, yet the interval is beyond 1 %."""
    a = [[20e6 * (1.05 if i in (0, 1) else 1.0)] * 3 for i in range(5)]
    before = Sample(20.0, "clean", rounds=[tuple(map(int, r)) for r in a])
    after = Sample(20.8, "clean", rounds=[tuple(int(t * 1.04) for t in r) for r in a])
    found = judge_change(expectations.expectation(">1%"), before, after, True)
    assert found.noise is not None and found.noise > 4 and found.found is not None and found.found.low > 1
    assert found.state == "UNCLEAR" and "noise" in found.reason


def test_few_rounds_are_unclear_however_far_apart() -> None:
    wide = judge_change(expectations.expectation(">3%"), clean(20, rounds=3), clean(40, rounds=8), False)
    assert wide.state == "UNCLEAR" and "too few" in wide.reason and wide.settle
    assert judge_value(expectations.expectation(">3"), clean(20, rounds=3)).state == "UNCLEAR"


@pytest.mark.parametrize(
    ("rule", "before", "after", "state", "low", "high"),
    [
        (">+0", (5, 5, 5), (6, 6, 6), "FAIL", 1, 1), (">+0", (5, 5, 5), (5, 5, 5), "PASS", 0, 0), (">+0", (5, 5, 5), (5, 6, 5), "UNCLEAR", 0, 1),
        (">+0", (5, 5, 6), (7, 8, 7), "FAIL", 1, 3), (">+0", (5, 6, 5), (4, 5, 5), "PASS", -2, 0), (">50%", (4, 4), (8, 10), "FAIL", 100, 150),
        (">+0", (0, 0), (0, 0), "PASS", 0, 0), (">7", (), (6, 8), "UNCLEAR", 6, 8), ("<7", (), (6, 6), "FAIL", 6, 6),
    ],
)  # fmt: skip
def test_counts_are_exact_or_span_the_iterations(rule: str, before: tuple[float, ...], after: tuple[float, ...], state: str, low: float, high: float) -> None:  # fmt: skip
    wanted = expectations.expectation(rule)
    old, new = (Sample(v[0] if v else 0.0, "count", tuple(map(float, v))) for v in (before, after))
    found = judge_change(wanted, old, new, False) if wanted.unit else judge_value(wanted, new)
    assert found.found is not None and (found.state, found.found.low, found.found.high) == (state, low, high)
    assert ("exact" in found.reason) == (len(set(after)) == 1 and len(set(before)) <= 1)


def test_what_was_zero_has_no_ratio() -> None:
    nothing, some = Sample(0.0, "count", (0.0, 0.0)), Sample(2.0, "count", (2.0, 2.0))
    assert judge_change(expectations.expectation(">3%"), nothing, some, False).state == "UNCLEAR"
    assert (
        judge_change(expectations.expectation(">3%"), Sample(1.0, "count", (0.0, 1.0)), some, False).state == "UNCLEAR"
    )
    assert judge_change(expectations.expectation(">+1"), nothing, some, False).state == "FAIL"


numbers = st.floats(-50, 50).map(lambda x: round(x, 3))


@given(
    st.sampled_from(["<", "<=", ">", ">="]),
    numbers,
    st.sampled_from(["x", "%", "+", ""]),
    st.floats(0, 20),
    st.floats(0, 20),
)
def test_the_bar_never_lies_on_the_good_side_and_rises_with_the_noise(operator: str, number: float, unit: Any, less: float, more: float) -> None:  # fmt: skip
    wanted = Expectation(operator, number, unit)
    sign = 1 if operator[0] == ">" else -1
    less, more = sorted((less, more))
    assert bar(wanted, 0.0) == number
    assert (
        sign * number <= sign * bar(wanted, less) + 1e-9 and sign * bar(wanted, less) <= sign * bar(wanted, more) + 1e-9
    )
    if wanted.same is not None:
        assert sign * bar(wanted, less) >= min(sign * number + less, sign * wanted.same + less) - 1e-9


def test_a_gate_of_two_like_captures_seldom_fails() -> None:
    """300 pairs without a true difference, 1 % noise a round: at most 1 % fail 'step_time>1%'; a true 5 % fails nearly always."""
    rng = np.random.default_rng(7)
    wanted = expectations.expectation(">1%")

    def sample(mean: float) -> Sample:
        rounds = [
            tuple(mean * (1 + 0.01 * rng.standard_normal()) * (1 + 0.002 * rng.standard_normal(3))) for _ in range(8)
        ]
        return Sample(float(stats.typical(rounds) or 0), "clean", rounds=rounds)

    same = [judge_change(wanted, sample(1e6), sample(1e6), False).state for _ in range(300)]
    slower = [judge_change(wanted, sample(1e6), sample(1.05e6), False).state for _ in range(40)]
    assert same.count("FAIL") <= 3 and slower.count("FAIL") >= 34, (same.count("FAIL"), slower.count("FAIL"))


# ---- measures that only gates ask for


def test_measures_of_the_sample_rest_on_all_its_iterations() -> None:
    found = study.load(ROOT / "reports" / "samples" / "kv_transfer")
    sample = lambda metric, name="graph": measures.sample(found, name, metric)  # noqa: E731
    assert (
        sample("launches", "baseline").each == (96.0,) * 8
        and sample("launches").value == 1
        and sample("launches").exact
    )
    assert sample("copies").value == 32 and sample("syncs").value == 0 and sample("exposed_comm").value == 0
    window = found.variants[0].iterations.windows[0]
    nothing = replace(
        window, launch=replace(window.launch, calls=())
    )  # a trace without host calls says nothing of them
    assert [measures.NAMES[n].of_window(nothing) for n in ("launches", "calls", "syncs")] == [None] * 3
    idle = sample("idle")
    assert len(idle.each) == 8 and min(idle.each) <= idle.value <= max(idle.each) and not idle.exact
    kernel = sample("kernel:nvjet")
    assert kernel.value == pytest.approx(np.mean(kernel.each)) and len(kernel.each) == 8
    assert sample("dram_bytes") is None and sample("fact:dropped") is None  # three of 96 kernels were counted
    assert len(sample("step_time").rounds) == 8 and sample("of_limit").power == -1


def test_facts_of_a_step_are_metrics(tmp_path: Path) -> None:
    change = variant("graph", lambda v: replace(v, facts={"dropped": 3, "load": (1.0, 2.0), "how": "fast"}))
    found = study.load(made(tmp_path / "now", change, light=True))
    assert measures.value(found, "graph", "fact:dropped") == 3
    assert measures.value(found, "graph", "fact:load") is None and measures.value(found, "graph", "fact:how") is None


# ---- the forms of the output


def check_of(*outcomes: gate.Outcome, on_unclear: Any = "pass", **more: Any) -> Check:
    found = Check(
        "now", "kv", "graph", "baseline main", "graph", "2026-11-24", "abc", None, on_unclear, False, outcomes, **more
    )
    return replace(found, failed=any(found.fails(o) for o in outcomes))


def outcome(state: Any, rule: str = "step_time>3%", reason: str = "so", **more: Any) -> gate.Outcome:
    values = {"found": stats.Interval(4.0, 3.5, 4.5), "noise": 1.0, "before": 20.0, "after": 20.8} | more
    return gate.Outcome(rule, "step_time", state, reason, "", "clean", "ms", "%", ">", 3.0, **values)


HOSTILE = "kernel:a|b`c*d_e<script>[x](y)\n# h & \\ \x07\ud7ff>3%"


@pytest.fixture
def hostile() -> Check:
    unlike = (note("unlike", what="GPU", before="|`<b>", after="x\ny"),)
    return check_of(
        outcome("PASS"),
        replace(outcome("UNCLEAR", HOSTILE, found=None, noise=None, before=None), metric="idle"),
        outcome("FAIL", reason=HOSTILE),
        unlike=unlike,
    )


def test_markdown_shows_hostile_names_as_they_stand(hostile: Check) -> None:
    written = checked.markdown(hostile)
    table = [line for line in written.splitlines() if line.startswith("| ")]
    assert len(table) == 5 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1  # no cell splits a row
    assert not re.search(r"(?<!\\)[`*]", "".join(table)) and "<" not in written
    assert [line.split(" | ")[1] for line in table[2:]] == ["FAIL", "UNCLEAR", "PASS"]  # failed ones first
    assert "Unlike captures" in written and "20.8 ms" in written and "+4% (+3.5% to +4.5%)" in written


@pytest.mark.parametrize("count", [3, 5000])
def test_markdown_stays_small_and_counts_what_it_leaves_out(count: int) -> None:
    many = [outcome("PASS", f"kernel:{'é|' * 400}{i}>3%", "r" * 900) for i in range(count)] + [outcome("FAIL")]
    notes = tuple(note("spread-high", variant="v" * 5000, spread_percent=1.0) for _ in range(300))
    written = checked.markdown(check_of(*many, notes=notes))
    assert len(written.encode()) < 65_536 and "| step\\_time&gt;3% | FAIL" in written
    shown = sum(line.startswith("| ") for line in written.splitlines()) - 2
    said = re.search(r"(\d+) more rules do not fit here: (\d+) PASS", written)
    assert (count + 1 - shown) == (int(said[1]) if said else 0) and (said is None) == (count == 3)


def test_junit_is_as_its_schema_says_and_counts_agree(hostile: Check) -> None:
    root = ET.fromstring(junit.render(hostile))
    assert junit_faults(root) == []
    (suite,) = root
    cases = suite.findall("testcase")
    assert [[c.tag for c in case if c.tag != "system-out"] for case in cases] == [[], ["skipped"], ["failure"]]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "3",
        "1",
        "1",
        "0",
    )
    assert "UNCLEAR" in str(cases[1][0].get("message")) and "\x07" not in junit.render(hostile)
    strict = ET.fromstring(junit.render(replace(hostile, on_unclear="fail")))
    assert (strict[0].get("failures"), strict[0].get("skipped")) == ("2", "0") and junit_faults(strict) == []


def junit_faults(root: ET.Element) -> list[str]:
    """What breaks junit-10.xsd (attributes that must be there, names of elements, their order in a suite, counts)."""
    allowed = {
        "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
        "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "hostname", "id", "package"}, {"properties", "testcase", "system-out", "system-err"}),
        "properties": (set(), {"property"}), "property": ({"name", "value"}, set()),
        "testcase": ({"name", "classname", "time", "group", "status"}, {"skipped", "error", "failure", "system-out", "system-err"}),
        "failure": ({"message", "type"}, set()), "skipped": ({"message", "type"}, set()), "system-out": (set(), set()),
    }  # fmt: skip
    faults = [f"root {root.tag}"] if root.tag != "testsuites" else []
    for element in root.iter():
        attributes, children = allowed[element.tag]
        faults += [f"{element.tag}@{name}" for name in element.keys() if name not in attributes]  # noqa: SIM118
        faults += [f"{element.tag}/{c.tag}" for c in element if c.tag not in children]
    for suite in root.findall("testsuite"):
        order = [["properties", "testcase", "system-out"].index(c.tag) for c in suite]
        faults += ["order"] if order != sorted(order) else []
        faults += [
            f"testcase without {n}" for c in suite.findall("testcase") for n in ("name", "classname") if not c.get(n)
        ]
        for name, tag in (("tests", "testcase"), ("failures", ".//failure"), ("skipped", ".//skipped")):
            faults += [name] if int(suite.get(name, "-1")) != len(suite.findall(tag)) else []
    return faults


def test_sarif_is_as_its_standard_says(hostile: Check) -> None:
    found = json.loads(sarif.render(hostile))
    assert found["version"] == "2.1.0" and found["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = found["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "moeprof" and [r["id"] for r in rules] == ["step_time", "idle"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] and result["message"]["text"]
        assert result["kind"] in ("pass", "open", "informational", "notApplicable", "review", "fail")
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["kind"] == "fail" or result["level"] == "none"  # 3.27.10
        (place,) = result["locations"][0]["logicalLocations"]
        assert place["fullyQualifiedName"] == "kv/graph"
    assert [(r["kind"], r["level"]) for r in run["results"]] == [("pass", "none"), ("open", "none"), ("fail", "error")]
    assert all(isinstance(i["executionSuccessful"], bool) for i in run["invocations"])  # 3.20.14: must be there
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 1
    strict = json.loads(sarif.render(replace(hostile, on_unclear="fail")))["runs"][0]["results"]
    assert [r["level"] for r in strict] == ["none", "error", "error"]


def valid(value: Any, schema: dict[str, Any], path: str = "$") -> list[str]:
    """What of ``value`` breaks the schema: the keywords that check.schema.json uses, and no other."""
    known = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "required", "properties", "const", "enum", "items", "minItems", "minLength", "minimum", "anyOf"}  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return valid(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    if "anyOf" in schema:
        tried = [valid(value, option, path) for option in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool, "null": type(None)}  # fmt: skip
    types = [schema.get("type", [])] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if types and not any(
        isinstance(value, kinds[t]) and (t == "boolean" or not isinstance(value, bool)) for t in types
    ):
        return [f"{path}: {value!r} is no {types}"]
    faults = (
        [f"{path}: {value!r}"]
        if value not in schema.get("enum", [value]) or value != schema.get("const", value)
        else []
    )
    if isinstance(value, (str, list)):
        faults += [f"{path}: too short"] if len(value) < schema.get("minLength", schema.get("minItems", 0)) else []
    if isinstance(value, (int, float)):
        faults += [f"{path}: too small"] if value < schema.get("minimum", value) else []
    if isinstance(value, dict):
        faults += [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
        faults += [f for name, part in schema.get("properties", {}).items() if name in value for f in valid(value[name], part, f"{path}.{name}")]  # fmt: skip
    if isinstance(value, list) and "items" in schema:
        faults += [f for i, item in enumerate(value) for f in valid(item, schema["items"], f"{path}[{i}]")]
    return faults


def test_the_schema_holds_for_every_kind_of_outcome_and_names_every_field(hostile: Check) -> None:
    found = json.loads(json.dumps(encode(hostile)))
    assert valid(found, SCHEMA) == []
    assert set(found) == set(SCHEMA["properties"]) and set(found["outcomes"][0]) == set(
        SCHEMA["$defs"]["outcome"]["properties"]
    )
    assert valid(found | {"failed": 1}, SCHEMA) and valid(found | {"outcomes": []}, SCHEMA)
    assert valid({k: v for k, v in found.items() if k != "git"}, SCHEMA) == ["$.git is missing"]


def test_a_file_of_each_form_beside_the_terminal(command: Run, tmp_path: Path) -> None:
    now = made(tmp_path / "now", light=True)
    names = {"--markdown": "out/a.md", "--junit": "a.xml", "--sarif": "a.sarif", "-o": "a.json"}
    (tmp_path / "a.xml").write_text("an earlier one")
    ran = command("check", now, "--fail-on", "step_time<50%", *(w for pair in names.items() for w in pair))
    assert ran.code == 3 and ran.out.startswith("FAILED") and ran.err.count("Wrote ") == 4
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(
        command("check", now, "--fail-on", "step_time<50%", "--json").out
    )
    assert ET.fromstring((tmp_path / "a.xml").read_text())[0].get("failures") == "1"
    assert not list(tmp_path.rglob("*.partial"))
