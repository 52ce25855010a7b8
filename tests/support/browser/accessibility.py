"""Rules of accessibility that a page breaks, as axe-core finds them in the browser. Needs no network."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass

from browser.chromium import Browser
from paths import SUPPORT

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
AXE = SUPPORT / "axe" / "axe.min.js.gz"
SERIOUS = ("serious", "critical")


@dataclass(frozen=True)
class Violation:
    """A rule that a page breaks: how grave that is, and the elements."""

    rule: str
    impact: str
    elements: tuple[str, ...]


def violations(browser: Browser) -> list[Violation]:
    """The rules that the open page breaks, the rules of WCAG 2.2 AA and of good practice."""
    script = gzip.decompress(AXE.read_bytes()).decode("utf-8")
    assert hashlib.sha256(script.encode()).hexdigest() == SHA256, f"{AXE} is not axe-core {VERSION}"
    browser.evaluate(f"{script}; 1")
    found = json.loads(
        browser.evaluate(
            "axe.run(document, {iframes: false, resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))"
        )
    )
    return [
        Violation(
            v["id"], v["impact"] or "", tuple(f"{n['html'][:160]}  ({n['failureSummary'][:200]})" for n in v["nodes"])
        )
        for v in found
    ]


def serious(browser: Browser) -> list[Violation]:
    """The violations that keep somebody from reading the page."""
    return [violation for violation in violations(browser) if violation.impact in SERIOUS]
