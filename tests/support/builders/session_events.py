"""Events of a session that several tests write into a log."""

from __future__ import annotations

from pathlib import Path

from moeprof import resources
from moeprof.session import log
from moeprof.session.log import Decide, New, Predict, Try

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
AT = "2026-11-24T00:00:00+00:00"
START = New("why?", "sleeper", "fast", AT)
BASE = Try("captures/step-00", AT, "abc", "", {"step_time": 4.0})
GUESS = Predict("fewer copies", "step_time", "<0.5x", AT)
TRIED = Try("captures/step-01", AT, "abc+dirty", "diff", {"step_time": 1.0}, 4.0, 1.0, True)
KEEP = Decide(True, "it held", AT)


def written(folder: Path, *events: log.Event) -> None:
    for event in events:
        log.append(folder, lambda _, event=event: event)
