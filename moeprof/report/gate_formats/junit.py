"""A judged gate as JUnit XML, after the schema that Jenkins publishes (junit-10.xsd of its xUnit plugin).

https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from moeprof.gate.gate import Check, Outcome
from moeprof.report.gate_formats.checked import headline, measured, why

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def render(check: Check) -> str:
    """One suite, a case for each rule: FAIL is a failure, UNCLEAR that passes is skipped."""
    counts = {
        "tests": len(check.outcomes), "failures": sum(check.fails(o) for o in check.outcomes), "errors": 0,
        "skipped": sum(o.state == "UNCLEAR" and not check.fails(o) for o in check.outcomes),
    }  # fmt: skip
    numbers = {name: str(count) for name, count in counts.items()}
    root = Element(
        "testsuites", {"name": "moeprof check", "time": "0", **{k: v for k, v in numbers.items() if k != "skipped"}}
    )
    suite = SubElement(root, "testsuite", {"name": _clean(f"{check.workload}/{check.variant}"), "time": "0", **numbers})
    properties = SubElement(suite, "properties")
    for name, value in _properties(check):
        SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for outcome in check.outcomes:
        _case(suite, check, outcome)
    SubElement(suite, "system-out").text = _clean(headline(check))
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(check: Check) -> list[tuple[str, str]]:
    facts = {
        "capture": check.capture, "variant": check.variant, "against": check.against, "against_variant": check.against_variant,
        "created": check.created, "git": check.git, "against_git": check.against_git, "on_unclear": check.on_unclear,
    }  # fmt: skip
    listed = [(name, value) for name, value in facts.items() if value is not None]
    return listed + [("unlike", n.text) for n in check.unlike] + [("note", n.text) for n in check.notes]


def _case(suite: Element, check: Check, outcome: Outcome) -> None:
    case = SubElement(
        suite,
        "testcase",
        {"classname": _clean(f"moeprof.{check.workload}.{check.variant}"), "name": _clean(outcome.rule), "time": "0"},
    )
    message = _clean(f"{measured(outcome)}: {why(outcome)}")
    if check.fails(outcome):
        kind = "regression" if outcome.state == "FAIL" else "unclear"
        SubElement(case, "failure", {"message": message, "type": kind}).text = message
    elif outcome.state == "UNCLEAR":
        SubElement(case, "skipped", {"message": f"UNCLEAR: {message}", "type": "unclear"})
    SubElement(case, "system-out").text = message


def _clean(text: str) -> str:
    """The text without characters that are illegal in XML."""
    return ILLEGAL.sub("�", text)
