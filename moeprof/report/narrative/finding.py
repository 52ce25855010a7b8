"""A finding in sentences: what it gains per step or pass, what follows from it, where else it is, and what was judged."""

from __future__ import annotations

from moeprof.analysis.model import Finding, Judged
from moeprof.findings.rules.common import plural, unit_of
from moeprof.units import ms, number, percent


def gain(finding: Finding) -> str:
    """ "at most 2.698 ms per pass, 13.5 % of the judged time (40.48 ms in 15 passes)"; empty for a finding about the trace itself."""
    if finding.id in TRUST:
        return ""
    share = "" if finding.gain_share is None else f", {percent(finding.gain_share)} of the judged time"
    if finding.passes <= 1:
        return f"at most {ms(finding.gain_ns)}{share}"
    unit = unit_of(finding.where)
    whole = f"{ms(finding.gain_ns)} in {number(finding.passes)} {plural(unit)}"
    return f"at most {ms(finding.gain_ns / finding.passes)} per {unit}{share} ({whole})"


TRUST = ("dropped-records",)


def follows(finding: Finding, names: dict[int, str]) -> str:
    """What follows from the finding, and how much of that is left without it; empty where nothing does."""
    return " ".join(text for text in (_same_device(finding), *(_waits(f, names) for f in finding.consequences)) if text)


def _same_device(finding: Finding) -> str:
    effects = [f for f in finding.consequences if f.device == finding.device]
    if not effects:
        return ""
    left = max((f.left_ns or 0) for f in effects)
    whose = "their gains" if len(effects) > 1 else "its gain"
    rest = f"at most {ms(left)} of {whose} is left" if left else f"nothing of {whose} is left"
    return f"What follows from it: {_listed([f.id for f in effects])}. Without it {rest}."


def _waits(effect: Finding, names: dict[int, str]) -> str:
    """Communication of another device that waits for this one."""
    if effect.id != "exposed-communication" or effect.evidence.get("waits_for_device") is None:
        return ""
    waited = effect.evidence["waits_for_other_devices_ns"]
    return f"{_device(effect, names)} waits {ms(waited)} in its communication until this GPU arrives."


def elsewhere(finding: Finding, names: dict[int, str]) -> str:
    """The same on other devices; empty where it is on one alone."""
    return " ".join(f"The same on {_device(f, names)}: {_short(f)}." for f in finding.on_other_devices)


def _short(finding: Finding) -> str:
    share = "" if finding.gain_share is None else f", {percent(finding.gain_share)} of its judged time"
    if finding.passes > 1:
        return f"at most {ms(finding.gain_ns / finding.passes)} per {unit_of(finding.where)}{share}"
    return f"at most {ms(finding.gain_ns)}{share}"


def judged(part: Judged) -> str:
    """How much of the trace was judged."""
    amount = (
        f"{number(part.operations)} of {number(part.of_operations)} operations, {ms(part.span_ns)} of {ms(part.of_span_ns)}"
        f" ({percent(part.span_ns / part.of_span_ns if part.of_span_ns else None)})"
    )
    if not part.repeats:
        return f"No repeating part covers enough of this trace, so all of it is judged: {amount}."
    passes = f", {number(part.passes)} passes" if part.passes > 1 and " x " not in part.label else ""
    return f"Judged: {part.label}{passes}: {amount}."


def _device(finding: Finding, names: dict[int, str]) -> str:
    return "another device" if finding.device is None else names.get(finding.device, f"GPU {finding.device}")


def _listed(words: list[str]) -> str:
    return " and ".join(text for text in (", ".join(words[:-1]), words[-1]) if text)
