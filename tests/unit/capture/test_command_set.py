"""Commands as baseline and optimized: what the options and the file say, read strictly, and the times of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from moeprof.capture import command_clock
from moeprof.capture.command_clock import Ran, times_ns, units_in
from moeprof.capture.command_set import Clock, CommandSet, Given, from_options, read
from moeprof.errors import UsageError, WorkloadError
from moeprof.storage.manifest import RUN
from moeprof.worker import region

PRINTED = r"(?P<value>[\d.,]+) (?P<unit>\S+)$"
TWO = """
[variants.baseline]
command = "python gen.py eager"
[variants.optimized]
command = ["python", "gen.py", "a b"]
"""


def of(tmp_path: Path, text: str) -> CommandSet:
    (tmp_path / "experts.toml").write_text(text, encoding="utf-8")
    return read(tmp_path / "experts.toml")


def test_options_name_the_commands_and_their_roles() -> None:
    found = from_options(
        Given(("fast='a b' --x=1", "slow=c", "baseline=d"), unit="step", check="cmp {baseline} {candidate}")
    )
    assert [(v.name, v.argv) for v in found.variants] == [
        ("fast", ("a b", "--x=1")),
        ("slow", ("c",)),
        ("baseline", ("d",)),
    ]
    assert (found.baseline.name, found.optimized.name, found.unit) == ("baseline", "slow", "step")
    assert found.clock == Clock("region", "step") and found.check is not None and found.check.command[0] == "cmp"
    bare = from_options(Given(("a=x", "b=y")))
    assert (bare.baseline.name, bare.optimized.name, bare.unit, bare.clock.kind, bare.check) == (
        "a",
        "b",
        RUN,
        "process",
        None,
    )
    both = from_options(Given(("a=x", "b=y"), unit="token", time=PRINTED, check_file="y.pt", tolerance=0.1))
    assert both.clock == Clock("prints", PRINTED) and both.unit == "token"
    assert (
        both.check is not None
        and both.check.files == {"a": Path("y.pt"), "b": Path("y.pt")}
        and both.check.tolerance == 0.1
    )


def test_a_file_says_more(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    found = of(
        tmp_path,
        """
        name = "moe"
        unit = "token"
        warm_up_runs = 2
        warm_up_steps = 3
        setup = "make"
        environment = { A = "1", B = "1" }
        [check]
        files = { baseline = "a.pt", optimized = "b.pt" }
        [variants.baseline]
        command = "x"
        [variants.optimized]
        command = "y"
        environment = { B = "2" }
        folder = "new"
        setup = "build it"
        """,
    )
    assert (found.name, found.unit, found.warm_up_runs, found.warm_up_steps, found.setup) == (
        "moe",
        "token",
        2,
        3,
        ("make",),
    )
    base, fast = found.variants
    assert (base.environment, fast.environment) == ({"A": "1", "B": "1"}, {"A": "1", "B": "2"})
    assert (base.folder, fast.folder, fast.setup) == (None, (tmp_path / "new").resolve(), ("build", "it"))
    assert found.check is not None and found.check.files["optimized"] == Path("b.pt") and found.check.tolerance is None
    assert of(tmp_path, TWO).name == "experts" and of(tmp_path, TWO).optimized.argv == ("python", "gen.py", "a b")


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("x = ", "is not TOML", ""),
        (TWO + "[check]\nfil = 'a'", "check: unknown key 'fil'", "'file'"),
        ("warmup_runs = 1" + TWO, "unknown key 'warmup_runs'", "'warm_up_runs'"),
        ("warm_up_runs = true" + TWO, "warm_up_runs: expected a whole number from 0, found bool True", ""),
        (TWO + "folder = 'nowhere'", "folder 'nowhere' is not a folder", ""),
        (TWO + "comand = 'x'", "variants.optimized: unknown key 'comand'", "'command'"),
        ("[variants.a]\ncommand = 'x'", "names 1 variant, two are needed", "moeprof capture -- PROGRAM"),
        (
            "[variants.a]\ncommand = 3\n[variants.b]\ncommand = 'x'",
            "variants.a: command: expected a text, found int 3",
            "",
        ),
        ("[variants.a]\nfolder = '.'\n[variants.b]\ncommand = 'x'", "variants.a.command is missing", ""),
        ("[variants.'a/b']\ncommand = 'x'\n[variants.b]\ncommand = 'x'", "the name 'a/b' cannot be a folder", ""),
        ("variants.a = \"x 'y\"\nvariants.b = 'z'", "cannot be split into words", "close the quotes"),
        ("time = '(?P<value>x)'" + TWO, "time lacks the group 'unit'", "for example"),
        ("time = '('" + TWO, "time is not a regular expression", "for example"),
        (TWO + "[check]\ntolerance = 0.1", "needs one of command, file and files", ""),
        (TWO + "[check]\nfile = 'a'\ntolerance = 2", "tolerance: expected a number from 0 to below 1, found 2", ""),
        (TWO + "[check]\ncommand = 'a'\ntolerance = 0.1", "tolerance is for files", ""),
        (TWO + "[check]\nfiles = { baseline = 'a' }", "files has no file of optimized", ""),
        ("environment = { A = 1 }" + TWO, "environment.A: expected a text, found int 1", ""),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        of(tmp_path, text)
    assert says in raised.value.message and hint in raised.value.hint and "\n" not in raised.value.message


def test_wrong_options_are_one_line(tmp_path: Path) -> None:
    for given, says in (
        (("a",), "is not NAME=COMMAND"),
        (("a= ", "b=x"), "is not NAME=COMMAND"),
        (("a=x", "a=y"), "was given twice"),
        (("a=x",), "names 1 variant"),
    ):
        with pytest.raises(UsageError, match=says):
            from_options(Given(given))
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path / "none.toml")


def ran(tmp_path: Path, output: str = "", **processes: list[tuple[str, int]]) -> Ran:
    (tmp_path / "out").write_text(output, encoding="utf-8")
    for pid, rows in processes.items():
        (tmp_path / f"{pid}{region.SUFFIX}").write_text(
            "".join(f"{ns} {name}\n" for name, ns in rows), encoding="utf-8"
        )
    return Ran("fast", 7_000, tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("printed", "ns"),
    [
        ("12.5 ms", 12_500_000), ("1,250 us", 1_250_000), ("3 µs", 3_000), ("2 s", 2_000_000_000), ("0.5 min", 30_000_000_000),
        ("200 tok/s", 5_000_000), ("4 s/it", 4_000_000_000), ("250 it/ms", 4_000),
    ],
)  # fmt: skip
def test_printed_times_have_units(tmp_path: Path, printed: str, ns: int) -> None:
    assert times_ns(ran(tmp_path, f"step: {printed}\n"), Clock("prints", PRINTED), None) == (ns,)


@pytest.mark.parametrize("printed", ["3 apples", "0 ms", "1.2.3 ms", "0 tok/s"])
def test_what_is_no_time_is_refused(tmp_path: Path, printed: str) -> None:
    with pytest.raises(WorkloadError, match="it printed"):
        times_ns(ran(tmp_path, f"step: {printed}\n"), Clock("prints", PRINTED), None)


def test_the_first_of_several_times_warms_up(tmp_path: Path) -> None:
    output = "9 ms\n1 ms\n2 ms\n"
    assert times_ns(ran(tmp_path, output), Clock("prints", PRINTED), None) == (1_000_000, 2_000_000)
    assert times_ns(ran(tmp_path, output), Clock("prints", PRINTED), 0) == (9_000_000, 1_000_000, 2_000_000)
    with pytest.raises(WorkloadError, match=r"3 times .* and 3 of them warm up"):
        times_ns(ran(tmp_path, output), Clock("prints", PRINTED), 3)
    assert times_ns(ran(tmp_path), Clock(), None) == (7_000,)


def test_of_several_processes_the_slowest_region_counts(tmp_path: Path) -> None:
    both = ran(tmp_path, p1=[("step", 5), ("other", 99), ("step", 7)], p2=[("step", 6), ("step", 4)])
    assert times_ns(both, Clock("region", "step"), 0) == (6, 7) and units_in(both, Clock("region", "step")) == 2
    with pytest.raises(WorkloadError, match="no time of a region 'stepp'; its regions: other, step"):
        times_ns(both, Clock("region", "stepp"), 0)
    uneven = ran(tmp_path, p1=[("step", 5)], p2=[("step", 6), ("step", 4)])
    with pytest.raises(WorkloadError, match="ran region 'step' 1 and 2 times"):
        times_ns(uneven, Clock("region", "step"), 0)


def test_rates_do_not_count_units(tmp_path: Path) -> None:
    assert units_in(ran(tmp_path, "1 ms\n2 ms\n"), Clock("prints", PRINTED)) == 2
    assert units_in(ran(tmp_path, "10 tok/s\n"), Clock("prints", PRINTED)) is None
    assert units_in(ran(tmp_path), Clock()) is None
    assert command_clock.UNITS_NS["ms"] == 1e6
