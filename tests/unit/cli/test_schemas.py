"""docs/schemas: written from the types, one for each command with --json, and what the commands print obeys them."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from builders.sample_captures import SAMPLE, Ran
from fakes import command_line
from paths import FAKES, ROOT
from recorded import recordings
from schemas import FOLDER, closed, published, valid

from moeprof.cli.main import cli
from moeprof.cli.outputs import DOCUMENTS, Ceilings
from moeprof.storage.json import encode
from moeprof.storage.schema import schema

RANKS = SAMPLE.parent / "expert_parallel"
COUNTED = next(SAMPLE.rglob("*.csv"), None)


def commands(group: click.Group, *words: str) -> Iterator[str]:
    """The names of all commands with --json, those of groups as "session log"."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        elif any("--json" in parameter.opts for parameter in command.params):
            yield " ".join((*words, name))


def test_the_schemas_are_those_of_the_types() -> None:
    documents = runpy.run_path(str(ROOT / "scripts" / "write_schemas.py"))["documents"]()
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == documents, (
        "write them anew: python scripts/write_schemas.py"
    )


def test_each_command_with_json_has_a_schema() -> None:
    assert {name.replace(" ", "-") for name in commands(cli)} == set(DOCUMENTS) - {"error"}


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", recordings.path("peer")),
        ("analyze", SAMPLE),
        ("check", SAMPLE, "--fail-on", "step_time > 3%"),
        ("export", SAMPLE, "--format", "parquet"),
        ("history", SAMPLE, SAMPLE),
        ("inspect", SAMPLE, "--kernel", "."),
        ("kernels", SAMPLE),
        ("ranks", RANKS),
        ("report", recordings.path("peer")),
        ("report", "--diff", SAMPLE, SAMPLE),
        ("report", "--diff", recordings.path("peer"), recordings.path("startend")),
        ("session", "log", "--sample", "first_investigation"),
        ("session", "show", "1", "--sample", "first_investigation"),
    ],
    ids=lambda words: " ".join(Path(word).name for word in words),
)
def test_what_a_command_prints_obeys_its_schema(command: Callable[..., Ran], words: tuple[str | Path, ...]) -> None:
    ran = command(*words, "--json")
    assert ran.code in (0, 3), ran.out
    name = f"session-{words[1]}" if words[0] == "session" else str(words[0])
    assert valid(json.loads(ran.out), closed(published(name))) == []


def test_counters_of_ncu_obey_the_schema_of_analyze(command: Callable[..., Ran]) -> None:
    assert COUNTED is not None
    ran = command("analyze", COUNTED, "--json")
    assert ran.code == 0 and valid(json.loads(ran.out), closed(published("analyze"))) == []


def test_a_folder_of_traces_and_baselines_obey_theirs(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    shutil.copy(recordings.path("peer"), tmp_path / "traces")
    (tmp_path / "traces" / "broken.sqlite").write_bytes(b"SQLite format 3\0")
    table = json.loads(command("analyze", "traces", "--json").out)
    assert table["failed"] == 1 and len(table["rows"]) == 2 and valid(table, closed(published("analyze"))) == []
    assert command("baseline", "save", "main", SAMPLE).code == 0
    baselines = json.loads(command("baseline", "list", "--json").out)
    assert len(baselines["baselines"]) == 1 and valid(baselines, closed(published("baseline-list"))) == []


def test_a_capture_and_ceilings_and_a_failure_obey_theirs(command: Callable[..., Ran], tmp_path: Path) -> None:
    captured = command_line.moeprof(
        "capture", str(FAKES / "workload.py"), *command_line.FAST, "--tools", "none", "--json", cwd=tmp_path
    )
    assert valid(json.loads(captured.stdout), closed(published("capture"))) == []
    ceilings = encode(Ceilings("NVIDIA H200", "580.1", "2.13", "2026-11-01T00:00:00Z", values={"copy_gb_per_s": 4.1}))
    assert valid(ceilings, closed(published("doctor"))) == []
    failed = command("analyze", "nothing.sqlite", "--json")
    assert failed.code != 0 and valid(json.loads(failed.out), closed(published("error"))) == []


@dataclass(frozen=True)
class Copy:
    """A copy."""

    bytes: int  # of the payload
    try_: str | None
    kind: Literal["peer", "host"]


@dataclass(frozen=True)
class Copies:
    """All copies."""

    copies: tuple[Copy, ...]
    grid: tuple[int, int]
    counts: dict[str, float]
    schema_version: int = 2


GOOD: dict[str, Any] = {
    "copies": [{"bytes": 5, "try": None, "kind": "peer"}], "grid": [1, 2], "counts": {"a": 1}, "schema_version": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"later": 1}, None),
        ({"copies": [{"bytes": 5, "kind": "peer"}]}, "$.copies[0]: 'try' is a required property"),
        ({"copies": [{"bytes": 5.5, "try": "x", "kind": "peer"}]}, "$.copies[0].bytes: 5.5 is not of type 'integer'"),
        ({"copies": [{"bytes": 5, "try": 1, "kind": "peer"}]}, "$.copies[0].try: 1 is not of type 'string', 'null'"),
        ({"copies": [{"bytes": 5, "try": "", "kind": "?"}]}, "$.copies[0].kind: '?' is not one of ['peer', 'host']"),
        ({"grid": [1]}, "$.grid: [1] is too short"),
        ({"grid": [1, 2, 3]}, "$.grid: Expected at most 2 items but found 1 extra: 3"),
        ({"counts": {"a": "1"}}, "$.counts.a: '1' is not of type 'number'"),
        ({"schema_version": 1}, "$.schema_version: 2 was expected"),
    ],
)
def test_a_schema_refuses_what_its_type_does_not_say(change: dict[str, Any], fault: str | None) -> None:
    faults = valid(GOOD | change, schema((Copies,), "copies"))
    assert [found.split(" was expected")[0] for found in faults] == ([fault.split(" was expected")[0]] if fault else [])


def test_comments_and_docstrings_are_the_descriptions() -> None:
    copy = schema((Copies,), "copies")["$defs"]["Copy"]
    assert copy["description"] == "A copy." and copy["properties"]["bytes"]["description"] == "of the payload"
    further = schema((Copies,), "copies", {"Copies.grid": {"description": "blocks"}})
    assert further["properties"]["grid"]["description"] == "blocks"
    with pytest.raises(ValueError, match=r"Copies\.size"):
        schema((Copies,), "copies", {"Copies.size": {}})
    with pytest.raises(TypeError, match="set"):
        schema((set,), "a set").get("")
