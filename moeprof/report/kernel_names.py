"""Short names of kernels that can be told apart: the function, and what in its template arguments no other one has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from moeprof.units import short_kernel

LIMIT = 60  # characters of a label
SHORTEST = 16  # characters of the function's own name that a label keeps
WORD = re.compile(r"[A-Za-z_]\w*|\d+")
PLAIN = frozenset(  # words that say little of a kernel
    {
        "void", "int", "unsigned", "const", "at", "native", "std", "c10", "float", "char", "bool", "long", "detail", "kernel", "impl",
        "anonymous", "unnamed", "namespace", "gpu_kernel_impl", "gpu_kernel_impl_nocast",
    }
)  # fmt: skip


def labels(names: Iterable[str], limit: int = LIMIT) -> dict[str, str]:
    """A label of at most ``limit`` characters for each name, different for different names.

    >>> labels(["void k<Add<int>>(int)", "void k<Mul<int>>(int)"])
    {'void k<Add<int>>(int)': 'k · Add', 'void k<Mul<int>>(int)': 'k · Mul'}
    """
    distinct = sorted(set(names))
    alike: dict[str, list[str]] = {}
    for name in distinct:
        alike.setdefault(short_kernel(name, limit) or name[:limit], []).append(name)
    labels: dict[str, str] = {}
    for short, members in alike.items():
        parts = [""] if len(members) == 1 else _differences(members)
        labels |= {name: _label(short, part, limit) for name, part in zip(members, parts, strict=True)}
    return _numbered(distinct, labels, limit)


def _differences(members: Sequence[str]) -> list[str]:
    """For each name the fewest words that no other one contains all of; words before numbers, rare ones first."""
    words = [list(dict.fromkeys(WORD.findall(name))) for name in members]
    owners: dict[str, set[int]] = {}
    for number, distinct in enumerate(words):
        for word in distinct:
            owners.setdefault(word, set()).add(number)
    parts = []
    for number, of in enumerate(words):
        undistinguished = set(range(len(members))) - {number}
        chosen: list[str] = []
        candidates = [word for word in of if len(owners[word]) < len(members)]
        candidates.sort(key=lambda word: (word[0].isdigit(), word in PLAIN, len(owners[word]), of.index(word)))
        for word in candidates:
            left = undistinguished & owners[word]
            if left != undistinguished:
                chosen.append(word)
                undistinguished = left
            if not undistinguished:
                break
        parts.append(" ".join(sorted(chosen, key=of.index)))
    return parts


def _label(short: str, part: str, limit: int) -> str:
    if not part:
        return short
    most = limit - min(len(short), SHORTEST) - 3
    if len(part) > most:  # the ends of a long word differ more often than its middle
        part = f"{part[: most // 3]}…{part[len(part) - (most - most // 3 - 1) :]}"
    room = limit - len(part) - 3
    return f"{short if len(short) <= room else short[: room - 1] + '…'} · {part}"


def _numbered(names: Sequence[str], labels: dict[str, str], limit: int) -> dict[str, str]:
    """Labels that are still alike, by number in the order of the names."""
    count: dict[str, int] = {}
    for label in labels.values():
        count[label] = count.get(label, 0) + 1
    numbers: dict[str, int] = {}
    result = {}
    for name in names:
        label = labels[name]
        if count[label] > 1:
            numbers[label] = numbers.get(label, 0) + 1
            tail = f" #{numbers[label]}"
            label = label[: limit - len(tail)] + tail
        result[name] = label
    return result
