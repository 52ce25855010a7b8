"""Two captures of programs: what differs between them, and whether both ran the same command line."""

from __future__ import annotations

import re
import shlex

from moeprof.compare import comparable
from moeprof.notes import Note, note
from moeprof.storage.manifest import Manifest

NUMBER = re.compile(r"\d")


def command(manifest: Manifest) -> tuple[str, ...]:
    """The program as it was started."""
    words = manifest.argv
    return words[words.index("--") + 1 :] if "--" in words else words


def same_command(before: Manifest, after: Manifest) -> bool:
    """Whether the command lines are equal, apart from one word at most. Two words that contain numbers may be sizes or counts of
    steps: they are other work."""
    first, second = command(before), command(after)
    if len(first) != len(second):
        return False
    apart = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    if len(apart) > 1:
        return False
    return not any(NUMBER.search(a) and NUMBER.search(b) for a, b in apart)


def unlike(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """As of any two captures, and the commands."""
    first, second = shlex.join(command(before)), shlex.join(command(after))
    differing = () if first == second else (note("unlike", what="command", before=first, after=second),)
    return (*differing, *(n for n in comparable.unlike(before, after) if n.evidence.get("what") != "workload"))
