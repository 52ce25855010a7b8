"""A judged gate for the terminal and as Markdown for a step's summary."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from moeprof import units
from moeprof.gate.gate import Check, Outcome
from moeprof.gate.rule import Expectation
from moeprof.report.markdown import escaped
from moeprof.report.page import Table
from moeprof.report.text import lines_of, rendered, width
from moeprof.report.text_layout import table_lines
from moeprof.storage.baselines import Baseline

STYLES = {"PASS": "bold green", "FAIL": "bold red", "UNCLEAR": "bold yellow"}
ORDER = ("FAIL", "UNCLEAR", "PASS")
MAX_MARKDOWN = 60_000  # bytes; a summary page accepts about 64 KiB per report
MAX_NOTES = 20


def word(check: Check) -> str:
    """The outcome of the gate."""
    return "FAILED" if check.failed else "PASSED"


def headline(check: Check) -> str:
    """The gate in one line: the captures, and the rules by state."""
    subject = f"{check.capture}, {check.variant}"
    against = "" if check.against is None else f" against {check.against}, {check.against_variant}"
    counts = ", ".join(f"{n} {state}" for state in ORDER if (n := check.count(state)))  # type: ignore[arg-type]
    option = f" (--on-unclear {check.on_unclear})" if check.count("UNCLEAR") else ""
    return f"{subject}{against}: {counts}{option}"


def why(outcome: Outcome) -> str:
    """The reason, and what would decide an unclear rule."""
    return outcome.reason + (f"; {outcome.settle} would decide it" if outcome.settle else "")


def measured(outcome: Outcome) -> str:
    """The value that was compared with the threshold, and its interval."""
    compared, expectation = outcome.found, expected(outcome)
    if compared is None:
        return units.DASH
    if compared.low == compared.high:
        return expectation.written(compared.value)
    return f"{expectation.written(compared.value)} ({expectation.written(compared.low)} to {expectation.written(compared.high)})"


def expected(outcome: Outcome) -> Expectation:
    """The expectation that an outcome judged."""
    return Expectation(outcome.operator, outcome.threshold, outcome.of)


def table(check: Check, caption: str = "Rules") -> Table:
    """All rules, those that failed first."""
    rows = [
        (o.rule, o.state, _value(o.before, o.unit), _value(o.after, o.unit), measured(o), _noise(o), why(o))
        for o in ordered(check)
    ]
    return Table(
        caption, ("fails on", "state", "before", "now", "compared", "A/A noise", "why"), tuple(rows), plain=True
    )


def ordered(check: Check) -> list[Outcome]:
    """The outcomes, FAIL first, then UNCLEAR."""
    return sorted(check.outcomes, key=lambda o: ORDER.index(o.state))


def _value(value: float | None, unit: str) -> str:
    return units.DASH if value is None else f"{Expectation('<', 0, '').written(value)} {unit}".strip()


def _noise(outcome: Outcome) -> str:
    if outcome.noise is None:
        return units.DASH
    return f"{outcome.noise:.2g}{' %' if outcome.of == '%' else ''}"


def text(check: Check) -> str:
    """For the terminal."""
    style = STYLES["FAIL"] if check.failed else STYLES["UNCLEAR"] if check.count("UNCLEAR") else STYLES["PASS"]
    lines = [line for n in check.unlike for line in lines_of(n.text, "bold yellow", "  ", "")]
    first, *more = lines_of(headline(check), indent="  ", first=f"{word(check)}  ")
    first.stylize(style, 0, len(word(check)))
    lines += [first, *more, Text(), *table_lines(table(check, ""), width())]
    lines += [line for n in check.notes for line in lines_of(n.text, "yellow", "  ", f"{n.severity}: ")]
    return rendered(lines)


def markdown(check: Check) -> str:
    """Markdown of at most MAX_MARKDOWN bytes: failed rules first; rules that do not fit are counted."""
    rules = table(check)
    lines = [f"### moeprof check: {word(check)}", "", escaped(headline(check)), ""]
    lines += _notes([f"**Unlike captures.** {escaped(n.text)}" for n in check.unlike])
    lines += ["| " + " | ".join(rules.header) + " |", "|" + " --- |" * len(rules.header)]
    tail = ["", *_notes([escaped(f"{n.severity}: {n.text}") for n in check.notes]), _git(check), ""]
    room = MAX_MARKDOWN - _size(lines) - _size(tail)
    shown = 0
    for row in rules.rows:
        line = "| " + " | ".join(escaped(cell) for cell in row) + " |"
        room -= _size([line])
        if room < 0:
            break
        lines.append(line)
        shown += 1
    if shown < len(rules.rows):
        hidden = [o.state for o in ordered(check)[shown:]]
        counts = ", ".join(f"{hidden.count(s)} {s}" for s in ORDER if s in hidden)
        tail.insert(1, f"{len(hidden)} more rules do not fit here: {counts}.\n")
    return "\n".join(lines + tail).rstrip() + "\n"


def _notes(lines: list[str]) -> list[str]:
    more = [f"... and {len(lines) - MAX_NOTES} more"] if len(lines) > MAX_NOTES else []
    return [part for line in lines[:MAX_NOTES] + more for part in (line, "")]


def _git(check: Check) -> str:
    states = [("now", check.git), ("before", check.against_git)]
    return "; ".join(f"{escaped(name)}: {escaped(state)}" for name, state in states if state)


def _size(lines: list[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def baselines_text(baselines: Sequence[Baseline]) -> str:
    """Named baselines for the terminal."""
    if not baselines:
        return "No baseline is saved here: moeprof baseline save NAME CAPTURE"
    rows = [
        (f"{b.name} *" if b.default else b.name, b.workload, b.created, b.saved or units.DASH, b.git or units.DASH, b.gpu or units.DASH, units.size(b.bytes))
        for b in baselines
    ]  # fmt: skip
    header = ("baseline (* default)", "workload", "captured", "saved", "git", "GPU", "size")
    return rendered(table_lines(Table("Baselines", header, tuple(rows), plain=True), width()))
