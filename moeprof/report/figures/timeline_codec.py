"""How numbers and names are written for the script of the timeline (timeline.js reads them back)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from moeprof.analysis.intervals import Times


def varints(values: np.ndarray) -> bytes:
    """Whole numbers from 0 up as LEB128."""
    numbers = np.asarray(values).astype(np.uint64, copy=False)
    if not len(numbers):
        return b""
    size = np.ones(len(numbers), dtype=np.int64)
    for bits in range(7, 64, 7):
        more = numbers >= np.uint64(1 << bits)
        if not more.any():
            break
        size += more
    at = np.cumsum(size) - size
    out = np.empty(int(size.sum()), dtype=np.uint8)
    for place in range(int(size.max())):
        wide = size > place
        low = (numbers[wide] >> np.uint64(7 * place)) & np.uint64(127)
        out[at[wide] + place] = low | np.where(size[wide] > place + 1, 128, 0).astype(np.uint64)
    return out.tobytes()


def zigzag(values: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ..."""
    numbers = np.asarray(values, dtype=np.int64)
    return np.asarray((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)


def sparse(values: np.ndarray) -> bytes:
    """Whole numbers as varints where a run of zeros is a 0 and its length."""
    numbers = np.asarray(values, dtype=np.int64)
    zero = numbers == 0
    starts = np.flatnonzero(zero & ~np.concatenate([[False], zero[:-1]]))
    ends = np.flatnonzero(zero & ~np.concatenate([zero[1:], [False]])) + 1
    keep = ~zero
    keep[starts] = True
    place = np.cumsum(keep)[starts]
    return varints(np.insert(numbers[keep], place, ends - starts))


def text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def bin_edges(span: int, count: int) -> Times:
    """The edges of ``count`` bins of [0, span): floor(span * i / count)."""
    return np.array([span * i // count for i in range(count + 1)], dtype=np.int64)


@dataclass
class Names:
    """Texts in order of their first use; a number in a range's name is taken out of it."""

    texts: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str) -> int:
        if name not in self.places:
            self.places[name] = len(self.texts)
            self.texts.append(name)
        return self.places[name]


def row_numbers(table: pd.DataFrame) -> np.ndarray:
    """One small number for each different row, in order of first appearance."""
    code = np.zeros(len(table), dtype=np.int64)
    for column in table:
        values, distinct = pd.factorize(table[column])
        code = pd.factorize(code * (len(distinct) + 1) + values)[0].astype(np.int64)
    return code
