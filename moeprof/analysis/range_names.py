"""Families of range names: what torch and NCCL name with a number of its own for each instance is one family."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moeprof.errors import choices

FIELDS = re.compile(r"(?:, \w+ = [\w.\[\], ]*)+$")  # ", seq = 46588, op_id = 995009"
NUMBER = re.compile(r"(?<![A-Za-z_])\d+")
MOST = 10  # families of a message


def family(name: str) -> str:
    """A name without what differs from instance to instance.

    >>> family("FlashAttnFunc, seq = 46588, op_id = 995009"), family("iteration 7")
    ('FlashAttnFunc', 'iteration *')
    """
    return NUMBER.sub("*", FIELDS.sub("", name)).strip() or name


def hint(wanted: str, names: Iterable[str]) -> str:
    """What to write in place of a range that does not exist: the nearest name, and the families with most ranges."""
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(family(name), []).append(name)
    if not members:
        return "it has no ranges"
    ranked = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = [f"{name!r} x {len(of)}" if len(of) > 1 else repr(of[0]) for name, of in ranked[:MOST]]
    more = f", and {len(ranked) - MOST} more" if len(ranked) > MOST else ""
    exact = members.get(family(wanted), [])
    near = [name for name, _ in ranked] if not exact else exact[:1]
    suggestion = choices(wanted, near, "").partition("?")[0]
    lead = f"{suggestion}? " if suggestion.startswith("did you mean") else ""
    if exact and exact[0] != wanted:
        lead = f"each {family(wanted)!r} has a name of its own, such as {exact[0]!r}; "
    return f"{lead}its ranges: {'; '.join(listed)}{more}"
