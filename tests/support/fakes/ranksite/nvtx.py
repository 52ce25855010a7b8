"""Stands for nvtx: writes each range to FAKE_NVTX/PID, a line [name, number, start, end] in ns of a clock that no other host has, as nsys
would see it. Without FAKE_NVTX nothing is kept."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

_open = []


def _written(line):
    folder = os.environ.get("FAKE_NVTX")
    if folder:
        with Path(folder, str(os.getpid())).open("a") as file:
            file.write(json.dumps(line) + "\n")


def _pop():
    name, payload, start = _open.pop()
    _written([name, payload, start, time.monotonic_ns()])


def get_domain(name):
    return SimpleNamespace(
        get_event_attributes=lambda message, payload=None: (message, payload),
        push_range=lambda attributes: _open.append((*attributes, time.monotonic_ns())),
        pop_range=_pop,
    )
