"""Options of ``nsys profile`` that the user hands through, beside those that a capture sets itself. Pure."""

from __future__ import annotations

import shlex

from moeprof.errors import UsageError

SHORT = {
    "-t": "--trace", "-s": "--sample", "-o": "--output", "-c": "--capture-range", "-d": "--duration", "-y": "--delay",
    "-Y": "--start-later", "-p": "--nvtx-capture", "-x": "--stop-on-exit", "-f": "--force-overwrite", "-w": "--show-output",
    "-e": "--env-var", "-n": "--inherit-environment", "-b": "--backtrace", "-h": "--help",
}  # fmt: skip
# option -> what to use instead
REFUSED = {
    "--output": "-o of moeprof capture", "--session-new": "nothing: the capture names its session",
    "--session": "nothing: the capture names its session", "--start-later": "--start-after S", "--delay": "--start-after S",
    "--duration": "--duration S of moeprof capture", "--duration-frames": "--duration S of moeprof capture",
    "--capture-range": "--start-on RANGE", "--capture-range-end": "--steps N", "--nvtx-capture": "--start-on RANGE",
    "--kill": "nothing: the program is never killed by nsys", "--stop-on-exit": "nothing: the report ends with the program",
    "--export": "--keep-raw, then nsys export", "--stats": "--keep-raw, then nsys stats", "--force-overwrite": "-f of moeprof capture",
    "--command-file": "the options themselves", "--trace-fork-before-exec": "--trace-fork-before-exec of moeprof capture",
    "--help": "nsys profile --help", "--wait": "nothing: the report ends with the last process of the program",
    "--hotkey-capture": "--start-on RANGE",
}  # fmt: skip
NEEDED = "cuda"  # in --trace: without it there is no GPU work to analyse


def option_name(word: str) -> str:
    """``--trace`` of ``--trace=cuda``, of ``-t`` and of ``-tcuda``; "" if the word is no option."""
    if word.startswith("--"):
        return word.partition("=")[0]
    return SHORT.get(word[:2], word[:2]) if word.startswith("-") and len(word) > 1 else ""


def parsed(text: str) -> tuple[str, ...]:
    """The words of ``--nsys-args``.

    Raises:
        UsageError: quotes do not match, a word is no option, an option conflicts with what a capture sets itself, or ``--trace``
            lacks cuda.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--nsys-args {text!r}: {error}", "quote it as a shell would") from error
    if words and not words[0].startswith("-"):
        raise UsageError(f"--nsys-args: {words[0]!r} is no option", "give options of nsys profile: nsys profile --help")
    for name in map(option_name, words):
        if name in REFUSED:
            raise UsageError(f"--nsys-args: {name} conflicts with what the capture sets itself", f"use {REFUSED[name]}")
    _check_trace(words)
    return words


def _check_trace(words: tuple[str, ...]) -> None:
    for at, word in enumerate(words):
        if option_name(word) != "--trace":
            continue
        value = (
            word.partition("=")[2] if "=" in word else word[2:] if len(word) > 2 and not word.startswith("--") else ""
        )
        value = value or (words[at + 1] if at + 1 < len(words) else "")
        if not any(part.partition("-")[0] == NEEDED for part in value.split(",")):
            raise UsageError(f"--nsys-args: --trace={value} lacks {NEEDED}", f"give --trace={NEEDED},nvtx,{value}")


def merged(defaults: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """The capture's own options without those that the user gives, then the user's."""
    names = {option_name(word) for word in given}
    return (*(word for word in defaults if option_name(word) not in names), *given)
