#!/usr/bin/env python3
"""Replay the tutorial "your first investigation" (docs/tutorial/first_investigation.md) on a GPU of sm_90 or later.

usage: first_investigation.py [--session DIR] [--variants A,B] [--check]

Makes cuda/stream_tile.cu the first draft of its pipelined kernel, then predicts, changes, tries and decides step by step with
`moeprof session`. A change is kept if the time falls by more than 1 %. The source is restored at the end; it must be under git
and unchanged. --check builds every state of the source and runs nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from moeprof import resources
from moeprof.capture import Request
from moeprof.cli.progress import terminal_progress
from moeprof.errors import MoeprofError, UsageError
from moeprof.report.narrative.sentences import verdict
from moeprof.session import log, steps

QUESTION = "The pipelined decode kernel reads far below what the memory gives. What is it waiting for?"
SOURCE, VARIANT = "stream_tile.cu", "tma_pipelined"
LEAST_GAIN = 0.01
Edit = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """A prediction and the edits that test it."""

    text: str
    metric: str
    expect: str
    edits: tuple[Edit, ...]


FETCH = "fetch(dynamic + stage * TILE_BYTES, source + t * TILE_BYTES, TILE_BYTES, &full[stage]"
READING = "        const char* source = reinterpret_cast<const char*>(work.cache);\n{}        for"
POLICY = "        const uint64_t policy = evict_first();\n"
PLAIN_COPY: tuple[Edit, ...] = ((f"{FETCH}, policy);", f"{FETCH});"), (READING.format(POLICY), READING.format("")))
EVICT_FIRST: tuple[Edit, ...] = tuple((new, old) for old, new in PLAIN_COPY)
ONE_BLOCK, ALL_BLOCKS = "*programs = sms;", "*programs = blocks * sms;"
DRAFT: tuple[Edit, ...] = (("STAGES", "2"), *PLAIN_COPY, (ALL_BLOCKS, ONE_BLOCK))
CHANGES = (
    Change(
        "Two stages of 16 KB are too few bytes in flight: an SM needs its share of the bandwidth for a microsecond, 35 KB. Four stages.",
        "step_time", "<0.75x", (("STAGES", "4"),),
    ),
    Change(
        "If bytes in flight decide, eight stages give more, but less than the step before: four already cover the latency.",
        "step_time", "<0.97x", (("STAGES", "8"),),
    ),
    Change(
        "Nothing is read twice, so lines that leave L2 first make room for others: evict first.",
        "step_time", "<0.98x", EVICT_FIRST,
    ),
    Change(
        "Two blocks an SM of six stages each: while one adds up its slice, the other still copies.",
        "step_time", "<0.98x", (("STAGES", "6"), (ONE_BLOCK, ALL_BLOCKS)),
    ),
    Change(
        "A barrier costs a wait a tile: tiles of 32 KB in three stages have the same bytes in flight and half the waits.",
        "step_time", "<0.99x", (("STAGES", "3"), ("TILE_ROWS", "128")),
    ),
    Change(
        "Four warps instead of eight issue the same loads from shared memory with fewer arrivals at the barriers.",
        "step_time", "<0.99x", (("WARPS", "4"),),
    ),
)  # fmt: skip


def apply(path: Path, edits: tuple[Edit, ...]) -> None:
    """Make the edits: a constant of that name gets the value, or a text that must be there once becomes another.

    Raises:
        UsageError: it is not there.
    """
    text = path.read_text(encoding="utf-8")
    for old, new in edits:
        text, count = re.subn(rf"constexpr int {re.escape(old)} = \d+;", f"constexpr int {old} = {new};", text)
        if count == 1:
            continue
        if text.count(old) != 1:
            raise UsageError(f"{path} holds {old!r} {text.count(old)} times", "the script fits another version of it")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def changed(path: Path) -> bool:
    """Whether the file differs from the commit."""
    done = subprocess.run(
        ["git", "-C", str(path.parent), "status", "--porcelain", "--", path.name],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise UsageError(f"{path} is not under git", "run the script in a checkout")
    return bool(done.stdout.strip())


def check(path: Path) -> None:
    """Build the draft and the source after each change."""
    from moeprof.workloads.common import nvcc

    apply(path, DRAFT)
    print("draft:", nvcc.build(SOURCE, (9, 0)).usage(VARIANT))
    for number, change in enumerate(CHANGES, 1):
        before = path.read_text(encoding="utf-8")
        apply(path, change.edits)
        print(f"step {number}:", nvcc.build(SOURCE, (9, 0)).usage(VARIANT))
        if number > 4:  # tried on their own
            path.write_text(before, encoding="utf-8")


def replay(path: Path, folder: Path, variants: tuple[str, ...]) -> None:
    """The whole session."""
    request = Request(variants=variants, argv=("moeprof", "session", "try"))
    steps.begin(folder, QUESTION, "decode_kernel", VARIANT)
    apply(path, DRAFT)
    steps.attempt(folder, request, terminal_progress(), verdict)
    for change in CHANGES:
        before = path.read_text(encoding="utf-8")
        steps.predict(folder, change.text, change.metric, change.expect)
        apply(path, change.edits)
        trial = steps.attempt(folder, request, terminal_progress(), verdict).steps[-1].trial
        assert trial is not None
        faster = trial.before is not None and trial.after is not None and trial.after < (1 - LEAST_GAIN) * trial.before
        steps.decide(folder, faster, "faster" if faster else "not faster by 1 %")
        if not faster:
            path.write_text(before, encoding="utf-8")
        print(f"{'kept' if faster else 'reverted'}: {trial.before} -> {trial.after} ms", file=sys.stderr)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--session", type=Path, default=steps.FOLDER)
    parser.add_argument("--variants", default=VARIANT)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    path = resources.folder("cuda") / SOURCE
    try:
        if changed(path):
            raise UsageError(f"{path} has changes", "commit them or put them away first")
        original = path.read_text(encoding="utf-8")
        try:
            check(path) if args.check else replay(path, args.session, tuple(args.variants.split(",")))
        finally:
            path.write_text(original, encoding="utf-8")
        if not args.check:
            print(f"{len(log.read(args.session).steps)} steps in {args.session}; next: moeprof session report")
    except MoeprofError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
