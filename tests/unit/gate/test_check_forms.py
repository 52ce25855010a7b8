"""Each form of a gate's output: text, Markdown, JUnit, SARIF and JSON with its schema."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemas
from builders.sample_captures import Ran, made
from schemas import valid

from moeprof.gate import gate
from moeprof.gate.gate import Check
from moeprof.notes import note
from moeprof.report.gate_formats import checked, junit, sarif
from moeprof.stats import estimates
from moeprof.storage.json import encode

Run = Callable[..., Ran]


def check_of(*outcomes: gate.Outcome, on_unclear: Any = "pass", **more: Any) -> Check:
    found = Check(
        "now", "kv", "graph", "baseline main", "graph", "2026-11-24", "abc", None, on_unclear, False, outcomes, **more
    )
    return replace(found, failed=any(found.fails(o) for o in outcomes))


def outcome(state: Any, rule: str = "step_time>3%", reason: str = "so", **more: Any) -> gate.Outcome:
    values = {"found": estimates.Interval(4.0, 3.5, 4.5), "noise": 1.0, "before": 20.0, "after": 20.8} | more
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
    assert "Unlike captures" in written and "20.8 ms" in written and "+4 % (+3.5 % to +4.5 %)" in written


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


def test_the_schema_holds_for_every_kind_of_outcome_and_names_every_field(hostile: Check) -> None:
    found = json.loads(json.dumps(encode(hostile)))
    assert valid(found, schemas.CHECK) == []
    assert set(found) == set(schemas.CHECK["properties"]) and set(found["outcomes"][0]) == set(
        schemas.CHECK["$defs"]["Outcome"]["properties"]
    )
    assert valid(found | {"failed": 1}, schemas.CHECK) and valid(found | {"outcomes": []}, schemas.CHECK)
    assert valid({k: v for k, v in found.items() if k != "git"}, schemas.CHECK) == ["$: 'git' is a required property"]


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
