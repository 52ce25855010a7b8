"""Finding workloads by name, path and entry point; parameters as typed; clear lines for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from moeprof.errors import UsageError
from moeprof.workload.find import listing, load
from moeprof.workload.model import Machine, needs_cuda

MINE = """
from moeprof import Proof, Step, Variant, Workload

def build(params, device):
    return Step(lambda: None, lambda: None, lambda: None, 1, 1)

WORKLOAD = Workload("mine", "a test", (Variant("a", "one", build), Variant("b", "two", build)), "a", "b",
                    {"default": {"n": 4, "x": 0.5, "name": "t", "on": True}, "tiny": {"n": 1, "x": 0.5, "name": "t", "on": True}},
                    lambda params, device, step: Proof(True, "nothing", 0.0, 0.0))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_the_built_in_workload_is_found_by_name_and_listed() -> None:
    assert load("kv_transfer").name == "kv_transfer"
    assert [v.name for v in load("kv_transfer").variants] == ["baseline", "overlap", "graph"]
    assert "kv_transfer" in [row.name for row in listing() if row.workload]


def test_a_workload_is_found_by_path(mine: Path) -> None:
    assert load(str(mine)).variant("b").summary == "two"


def test_parameters_take_the_type_of_the_preset(mine: Path) -> None:
    params = load(str(mine)).params("default", {"n": "7", "x": "2", "on": "false"})
    assert params == {"n": 7, "x": 2.0, "name": "t", "on": False}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [({"m": "1"}, "no parameter 'm'"), ({"n": "two"}, "n='two' is not int"), ({"on": "maybe"}, "not a yes or no")],
)
def test_a_wrong_parameter_is_named(mine: Path, overrides: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(str(mine)).params("default", overrides)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", "declares no WORKLOAD"),
        ("import nothing_of_that_name", "does not import: ModuleNotFoundError"),
        (MINE.replace('"a", "b",\n', '"a", "c",\n'), "optimized 'c' is not one of its variants"),
    ],
)
def test_a_broken_workload_file_is_one_clear_line(tmp_path: Path, source: str, words: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=words):
        load(str(path))


def test_unknown_names_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load("nothing")
    assert "kv_transfer" in caught.value.hint
    with pytest.raises(UsageError, match="no workload file"):
        load(str(tmp_path / "absent.py"))
    with pytest.raises(UsageError, match="no variant 'x'"):
        load("kv_transfer").variant("x")
    with pytest.raises(UsageError, match="no preset 'x'"):
        load("kv_transfer").params("x", {})


def test_every_preset_has_the_same_parameters() -> None:
    workload = load("kv_transfer")
    assert len({tuple(sorted(p)) for p in workload.presets.values()}) == 1
    assert {"default", "tiny", "gb10"} <= set(workload.presets)


def test_graph_says_why_it_is_skipped() -> None:
    assert needs_cuda(Machine(cuda=False, gpus=0)) == "needs a CUDA GPU"
    assert load("kv_transfer").variant("graph").needs(Machine(cuda=True, gpus=1)) is None
