"""JSON in and out of dataclasses: what goes out comes back, and a wrong field is named by its path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.errors import CaptureError
from moeprof.storage.json import decode, dumps, encode, loads


@dataclass(frozen=True)
class Inner:
    name: str
    value: float | None = None


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    count: int
    inner: tuple[Inner, ...] = ()
    table: dict[str, float] = field(default_factory=dict)
    try_: str = ""


inners = st.builds(Inner, st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
outers = st.builds(
    Outer,
    st.sampled_from(["a", "b"]),
    st.integers(-(2**62), 2**62),
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    st.text(),
)


@given(outers)
def test_what_goes_out_comes_back(value: Outer) -> None:
    assert decode(Outer, json.loads(dumps(value))) == value


def test_trailing_underscore_is_left_out_of_the_key() -> None:
    assert encode(Outer("a", 1, try_="x"))["try"] == "x"


def test_unknown_keys_are_ignored_and_defaults_filled() -> None:
    assert decode(Outer, {"kind": "a", "count": 1, "later": 5}) == Outer("a", 1)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"kind": "a"}, "$.count is missing"),
        ({"kind": "c", "count": 1}, "$.kind"),
        ({"kind": "a", "count": "1"}, "$.count: expected int"),
        ({"kind": "a", "count": True}, "$.count"),
        ({"kind": "a", "count": 1, "inner": [{"name": "x"}, {"value": 1}]}, "$.inner[1].name is missing"),
        ({"kind": "a", "count": 1, "inner": {}}, "$.inner: expected a list"),
        ({"kind": "a", "count": 1, "table": {"k": "v"}}, "$.table.k: expected float, found str 'v'"),
        ({"kind": "a", "count": 1, "table": {"k": 10**400}}, "$.table.k: expected a number that a float can represent"),
        ([], "$: expected an object"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(data: object, path: str) -> None:
    with pytest.raises(CaptureError) as caught:
        decode(Outer, data)
    assert path in caught.value.message


def test_absent_is_null_never_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps(Inner("x", float("nan")))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 100_000, "nests too deep"),
        ('{"a": ' * 100_000, "nests too deep"),
        ("{", "Expecting property name"),
        (b'"\xff"', "invalid start byte"),
        ("9" * 5000, "4300"),
        ("", "Expecting value"),
    ],
    ids=["brackets", "objects", "cut off", "latin-1", "digits", "empty"],
)
def test_what_is_no_json_is_one_clear_line(text: str | bytes, fault: str) -> None:
    with pytest.raises(CaptureError, match="not valid JSON") as caught:
        loads(text)
    assert fault in caught.value.message and "\n" not in caught.value.message


def test_half_a_surrogate_pair_becomes_a_character_that_can_be_written() -> None:
    value = loads(b'{"\\ud800": ["a\\uDC00b", {"whole": "\\ud83d\\ude00 \\\\ud800"}, 3]}')
    assert value == {"\ufffd": ["a\ufffdb", {"whole": "\U0001f600 \\ud800"}, 3]}
    assert json.loads(dumps(value).encode()) == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))  # fmt: skip
def test_other_json_is_read_as_it_stands(value: object) -> None:
    assert loads(json.dumps(value)) == value
