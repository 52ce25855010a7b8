"""What ``moeprof check`` does: find the two sides, judge the rules, write the reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeprof.gate import gate
from moeprof.gate.gate import Check, Side
from moeprof.loaded import capture as study
from moeprof.storage import baselines


@dataclass(frozen=True)
class Asked:
    """A gate as the command line asks for it. ``against``: a baseline's name or a path."""

    capture: Path
    rules: tuple[str, ...]
    against: str | None = None
    variant: str | None = None
    on_unclear: Literal["pass", "fail"] = "pass"
    baselines: Path = baselines.FOLDER


def run(asked: Asked) -> Check:
    """Judge the gate.

    Raises:
        UsageError: a rule is wrong, or a variant is not there, or there is nothing to compare with.
        CaptureError: a capture is missing or not whole.
        WorkloadError: a variant failed or its proof did.
    """
    judged = gate.rules(asked.rules)
    found = study.load(asked.capture)
    now = Side(found, asked.variant or found.manifest.chosen, str(asked.capture))
    return gate.check(now, _base(asked, now), judged, asked.on_unclear)


def _base(asked: Asked, now: Side) -> Side | None:
    """What is compared with: as asked, else the default baseline, else the capture's own baseline variant."""
    against = asked.against or baselines.default(asked.baselines)
    if against is not None:
        path, name = baselines.resolve(against, asked.baselines)
        return Side(study.load(path), now.variant, name)
    own = now.study.manifest.baseline
    return None if own is None or own == now.variant else Side(now.study, own, now.name)
