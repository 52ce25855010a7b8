"""The command line: help, what it documents, and what its documents say of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from builders.sample_captures import SAMPLE, Ran, answer
from fakes.command_line import moeprof, running
from fakes.forked import FORKS
from paths import ROOT
from recorded import recordings
from schemas import closed, published, valid

from moeprof.cli.help import SHORT, GroupedOptions, first_sentence
from moeprof.cli.main import Moeprof, cli
from moeprof.errors import ExitCode

HEAVY = ("pandas", "plotly", "jinja2", "rich", "torch", "numpy", "pynvml")


def run(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "moeprof", *words]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_and_stands_in_the_docs(name: str) -> None:
    command = cli.commands[name]
    assert command.help
    docs = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert f"## moeprof {name}\n" in docs or f"`moeprof {name}" in docs
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help and option.opts[-1] in docs, option.opts


@pytest.mark.parametrize("group_name", ["session", "baseline"])
def test_every_command_of_a_group_stands_in_the_docs(group_name: str) -> None:
    docs = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    group = cli.commands[group_name]
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        assert command.help and f"`{group_name} {name}" in docs
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help and option.opts[-1] in docs, (name, option.opts)


def test_exit_codes_stand_in_the_docs() -> None:
    docs = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert len(ExitCode) == len(re.findall(r"^\| \d+ \| ", docs, flags=re.M))
    for code in ExitCode:
        assert f"| {int(code)} |" in docs


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; sys.argv = ['moeprof', '--help']\nfrom moeprof.cli.main import cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip().endswith("[]")
    assert "capture" in ran.stdout


def test_moeprof_alone_prints_its_help_and_succeeds() -> None:
    alone, explicit = run(), run("--help")
    assert alone.returncode == 0 and alone.stdout == explicit.stdout and "capture" in alone.stdout and not alone.stderr


def test_list_shows_variants_and_why_one_is_skipped(command: Callable[..., Ran]) -> None:
    ran = command("list")
    assert ran.code == 0 and "kv_transfer" in ran.out and "presets: default, short, gb10, tiny" in ran.out
    found = answer(command("list", "--json"))
    assert valid(found, closed(published("list"))) == []
    (row,) = [w for w in found["workloads"] if w["name"] == "kv_transfer"]
    assert [v["name"] for v in row["variants"]] == ["baseline", "overlap", "graph"] and row["optimized"] == "graph"
    skipped = [v for w in found["workloads"] for v in w["variants"] if v["skip"]]
    reasons = sorted({v["skip"] for v in skipped})
    marked = [line for line in ran.out.splitlines() if line.startswith("- ")]
    assert len(marked) == len(skipped) + len(reasons)
    assert sorted(line[2:].partition(": ")[0] for line in marked if line.endswith(("variant", "variants"))) == reasons


def test_doctor_names_each_thing_and_its_mend(command: Callable[..., Ran]) -> None:
    found = answer(command("doctor", "--json"))
    assert valid(found, closed(published("doctor"))) == []
    names = [c["name"] for c in found["checks"]]
    assert names == ["GPU", "other processes", "torch", "ranks", "nsys", "ncu", "counter permission", "nvcc", "disk"]
    assert all(
        bool(c["mend"]) == (c["status"] in ("degraded", "missing")) for c in found["checks"] if c["status"] != "ok"
    )
    assert command("doctor", "--nsys", "/nowhere/nsys").words.count("does not exist") == 1


@pytest.mark.parametrize("words", [("nothing",), ("report", "--nothing"), ("analyze",)])
def test_a_wrong_command_line_ends_with_2_and_one_line(words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    assert ran.stderr.startswith("error: ") and "hint: see: moeprof" in ran.stderr


def test_version_and_help_are_commands_too(command: Callable[..., Ran]) -> None:
    assert run("--version").stdout.startswith("moeprof 0.") and command("version").out == run("--version").stdout
    assert command("help").out == command().out and command("help", "session", "try").out.startswith(
        "Usage: moeprof session try"
    )
    assert command("help", "nothing").code == ExitCode.USAGE and "has no commands" in command("help", "list", "a").err


def test_the_first_sentences_of_the_help_are_whole_and_grouped() -> None:
    for name, shown in cli.commands.items():
        assert len(first_sentence(shown)) < SHORT and "..." not in first_sentence(shown), name
    grouped = [name for names in Moeprof.sections.values() for name in names]
    visible = [name for name, shown in cli.commands.items() if not shown.hidden]
    assert sorted([*grouped, "completion"]) == sorted(visible)
    for columns in ("80", "100", "120"):
        ran = run("--help", env={"COLUMNS": columns})
        assert all(len(line) <= int(columns) for line in ran.stdout.splitlines())
        for name in visible:
            assert first_sentence(cli.commands[name]) in ran.stdout, (columns, name)


def test_the_options_of_capture_are_in_groups() -> None:
    shown = cli.commands["capture"]
    assert isinstance(shown, GroupedOptions)
    printed = run("capture", "--help").stdout
    assert [line for line in printed.splitlines() if line.endswith(":")] == [
        f"{heading}:" for heading in shown.sections
    ]


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("reprot",), "Did you mean 'report'?"),
        (("profile",), "Did you mean 'capture'?"),
        (("report", "--opne"), "--open"),
        (("capture", "kv_transfr"), "did you mean 'kv_transfer'? workloads: "),
        (("capture", "router", "--variants", "dens"), "did you mean 'dense'? its variants: "),
        (("capture", "router", "--preset", "defalt"), "did you mean 'default'? its presets: "),
        (("capture", "router", "--set", "token=1"), "did you mean 'tokens'? its parameters: "),
        (("report", "--sample", "rooter"), "did you mean 'router'? samples: "),
        (("session", "log", "--sample", "first"), "recorded sessions: first_investigation"),
        (("history", SAMPLE, "--metric", "step_tim"), "did you mean 'step_time'? metrics: "),
        (("check", SAMPLE, "--fail-on", "step_time>3%", "--variant", "grap"), "did you mean 'graph'?"),
        (("analyze", recordings.path("sync-item-faulty"), "--range", "stp"), "did you mean 'step'? its ranges: 'step'"),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value) if isinstance(value, tuple) else "",
)
def test_a_wrong_name_gets_the_nearest(
    command: Callable[..., Ran], words: tuple[str | Path, ...], suggestion: str
) -> None:
    ran = command(*words)
    assert ran.code in (ExitCode.USAGE, ExitCode.FAILED) and suggestion in ran.words, ran.words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(command: Callable[..., Ran], shell: str) -> None:
    ran = command("completion", shell)
    assert ran.code == 0 and f"_MOEPROF_COMPLETE={shell}_complete" in ran.out


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("capture rou", ["router"]), ("capture router --variants dense,fu", ["dense,fused"]), ("capture router --preset mix", ["mixtral", "mixtral-decode"]),
        ("report --sample mla", ["mla_decode"]), ("session log --sample f", ["first_investigation"]), ("history --metric step", ["step_time"]),
        ("report moeprof-out/c", ["moeprof-out/cap"]), ("inspect router --variant top", ["topk"]),
    ],
)  # fmt: skip
def test_names_complete(tmp_path: Path, typed: str, names: list[str]) -> None:
    (tmp_path / "moeprof-out" / "cap").mkdir(parents=True)
    shutil.copy(SAMPLE / "manifest.json", tmp_path / "moeprof-out" / "cap")
    words = ["moeprof", *typed.split()]
    env = {"_MOEPROF_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    ran = run(cwd=tmp_path, env=env)
    assert [line.partition(",")[2] for line in ran.stdout.splitlines() if line.startswith("plain,")] == names, (
        ran.stderr
    )


@pytest.mark.parametrize(
    "words",
    [("--version",), ("nothing", "--json"), ("analyze", str(SAMPLE), "--json"), ("report", "--sample", "nothing")],
)
def test_a_fork_of_the_warm_process_ends_as_a_fresh_interpreter_does(words: tuple[str, ...], tmp_path: Path) -> None:
    """Most tests run the command in such a fork."""
    fresh = run(*words, cwd=tmp_path)
    for forked in (
        moeprof(*words, cwd=tmp_path),
        moeprof(*words, cwd=tmp_path, PYTHONPATH=""),
    ):  # without and with torch
        assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)
    assert fresh.stdout or fresh.stderr


def test_a_fork_has_the_modules_and_variables_of_its_own_command_and_ends_in_time(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "print(os.environ['MARK'], os.getcwd(), 'pandas' in sys.modules, 'torch' in sys.modules)\n"
        "time.sleep(float(os.environ.get('LATE', 0)))\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path), "MARK": "first"}
    ran = FORKS.run(["--version"], tmp_path, env, timeout_s=60)
    assert ran.stdout.splitlines()[0] == f"first {tmp_path} True False" and "moeprof 0." in ran.stdout
    fork = FORKS.start(("-P", "-m", "moeprof", "--version"), tmp_path, env | {"LATE": "60"})
    until = time.monotonic() + 10
    while not running("moeprof", tmp_path) and time.monotonic() < until:
        time.sleep(0.01)
    assert running("moeprof", tmp_path) and not running("fakes/bin", tmp_path), "tests find a fork by its name"
    fork.close()
    assert fork.returncode == -9 and not running("moeprof", tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        FORKS.run(["--version"], tmp_path, env | {"LATE": "60"}, timeout_s=1)
    assert (
        FORKS.run(["--version"], tmp_path, os.environ | {"PYTHONPATH": ""}, timeout_s=60).stdout
        == run("--version").stdout
    )
