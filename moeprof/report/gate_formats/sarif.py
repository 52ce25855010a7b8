"""A judged gate as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).

A rule that is UNCLEAR and passes has kind "open": "insufficient information to decide" (3.27.9); what is no failure has level
"none" (3.27.10).
"""

from __future__ import annotations

import json
from typing import Any

import moeprof
from moeprof.gate import metrics as measures
from moeprof.gate.gate import Check, Outcome
from moeprof.report.gate_formats.checked import headline, measured, why

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(check: Check) -> str:
    """One run: its rules are the metrics, its results the rules of the gate."""
    metrics = list(dict.fromkeys(o.metric for o in check.outcomes))
    run = {
        "tool": {"driver": {"name": "moeprof", "version": moeprof.__version__, "rules": [_rule(m) for m in metrics]}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notifications(check)}],
        "results": [_result(check, o, metrics.index(o.metric)) for o in check.outcomes],
        "properties": {"summary": headline(check), "failed": check.failed},
    }
    return (
        json.dumps(
            {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False, ensure_ascii=False
        )
        + "\n"
    )


def _rule(metric: str) -> dict[str, Any]:
    about = measures.metric(metric)
    return {"id": metric, "shortDescription": {"text": about.meaning}}


def _notifications(check: Check) -> list[dict[str, Any]]:
    return [
        {"level": "warning", "descriptor": {"id": n.id}, "message": {"text": n.text}}
        for n in (*check.unlike, *check.notes)
    ]


def _result(check: Check, outcome: Outcome, index: int) -> dict[str, Any]:
    failed = check.fails(outcome)
    full = f"{check.workload}/{check.variant}"
    return {
        "ruleId": outcome.metric,
        "ruleIndex": index,
        "kind": "fail" if failed else {"UNCLEAR": "open"}.get(outcome.state, "pass"),
        "level": "error" if failed else "none",
        "message": {"text": f"{outcome.state}: {outcome.rule}: {measured(outcome)}: {why(outcome)}"},
        "locations": [{"logicalLocations": [{"name": check.variant, "fullyQualifiedName": full, "kind": "variant"}]}],
        "partialFingerprints": {"moeprofRule/v1": f"{full}: {outcome.rule}"},
    }
