"""The first sentence for each public trace, as documented, against an independent sweep over the file."""

from __future__ import annotations

import re
from pathlib import Path

import analysed_traces
import pytest
import sweep
from paths import ROOT

from moeprof.report.narrative.trace import answer

PAGE = ROOT / "docs" / "reference" / "first_sentences.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| `\S+\.(sqlite|json\.gz)` \|", line)
]
OWNER = {"is idle": "idle", "only copies": "copy", "only communicates": "communication", "computes": "compute"}
EDGE_NS = 50_000  # Kineto's times are floats of microseconds: events overlap by roundings, here of 300 events


def test_every_public_trace_is_listed(traces: Path) -> None:
    public = {p.name for folder in ("nsys", "kineto") for p in (traces / folder).iterdir()}
    assert {row[0].strip("`") for row in ROWS} == public


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_the_sentence_is_as_documented_and_true(traces: Path, row: list[str]) -> None:
    name, sentence, judged = row[0].strip("`"), row[2], row[3]
    path = traces / ("nsys" if name.endswith(".sqlite") else "kineto") / name
    analysis = analysed_traces.analysis(path)
    assert answer(analysis).headline == sentence
    found = re.match(r"GPU (\d+) (is idle|only copies|only communicates|computes) ([\d.]+) % of the time", sentence)
    assert found is not None
    device, owner, share = int(found[1]), OWNER[found[2]], float(found[3])
    part = next(p for p in analysis.judged if p.device == device)
    window = next(w for w in analysis.windows if w.device == device)
    begin, end = ((ns - window.start_ns) / 1e6 for ns in (part.start_ns, part.end_ns))
    assert judged == f"{begin:.3f} to {end:.3f}"
    events = sweep.events(path, device)
    zero = min(start for start, _, _ in events)
    start, finish = (round(float(ms) * 1e6) + zero for ms in judged.split(" to "))
    spent = sweep.owners(events, start, finish)
    assert 100 * spent[owner] / (finish - start) == pytest.approx(share, abs=0.06)
    ledger = part.ledger
    moeprof = {
        "idle": ledger.idle_ns,
        "copy": ledger.exposed_copy_ns,
        "communication": ledger.exposed_comm_ns,
        "compute": ledger.compute_ns,
    }
    assert all(abs(spent[key] - ns) <= EDGE_NS for key, ns in moeprof.items())


def test_the_sweep_is_right_on_a_case_by_hand() -> None:
    events = [(0, 10, "compute"), (5, 20, "copy"), (15, 18, "communication"), (30, 40, "memset")]
    assert sweep.owners(events, 0, 50) == {"compute": 10, "copy": 7, "communication": 3, "memset": 10, "idle": 20}
    assert sweep.owners(events, 8, 16) == {"compute": 2, "copy": 5, "communication": 1, "memset": 0, "idle": 0}
