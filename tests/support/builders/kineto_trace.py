"""Kineto traces made or edited for a test: a small one, and faults planted in a recorded one. Times in microseconds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]
PID, THREAD, OTHER_THREAD = 543, 543, 544


def small(path: Path, iterations: int = 2) -> Path:
    """``iterations`` ranges "step" of 100 us: a launch in aten::mm, its kernel [20, 60), a pinned copy [40, 80) us."""
    events: list[Event] = []
    for number in range(iterations):
        zero, id = 100.0 * number, 10 * number + 1
        events += [
            span("user_annotation", "step", zero, 30), span("cpu_op", "aten::mm", zero + 1, 10),
            call("cudaLaunchKernel", zero + 2, 5, id), call("cudaMemcpyAsync", zero + 12, 3, id + 1),
            work("kernel", "gemm", zero + 20, 40, id, 7), work("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", zero + 40, 40, id + 1, 13),
        ]  # fmt: skip
    path.write_text(json.dumps({"schemaVersion": 1, "deviceProperties": [], "traceEvents": events}))
    return path


def span(cat: str, name: str, ts: float, dur: float, tid: int = THREAD) -> Event:
    """Something on a host thread."""
    return {"ph": "X", "cat": cat, "name": name, "pid": PID, "tid": tid, "ts": ts, "dur": dur, "args": {}}


def call(name: str, ts: float, dur: float, correlation: int, tid: int = THREAD) -> Event:
    """A call into the CUDA runtime."""
    return span("cuda_runtime", name, ts, dur, tid) | {"args": {"correlation": correlation}}


def work(cat: str, name: str, ts: float, dur: float, correlation: int, stream: int) -> Event:
    """Something on the device."""
    args = {"device": 0, "context": 1, "stream": stream, "correlation": correlation, "bytes": 1000}
    return {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur, "args": args}


class Recorded:
    """A recorded trace whose events can be edited; ``written`` gives the file."""

    def __init__(self, source: Path) -> None:
        self.document: dict[str, Any] = json.loads(source.read_text())
        self.events: list[Event] = self.document["traceEvents"]

    def of(self, cat: str, name: str = "") -> list[Event]:
        """Events of a category whose name holds ``name``, by time."""
        return sorted((e for e in self.events if e.get("cat") == cat and name in e["name"]), key=lambda e: e["ts"])

    def ranges(self) -> list[Event]:
        """The measured iterations."""
        return self.of("user_annotation", "iter")

    def written(self, target: Path) -> Path:
        """The edited trace as a file."""
        target.write_text(json.dumps(self.document))
        return target

    def add_sync(self, tid: int | None = None) -> None:
        """In the last iteration the host reads a value back: aten::item waits for the stream."""
        last = self.ranges()[-1]
        at, thread = last["ts"] + last["dur"] - 5, tid or last["tid"]
        self.events += [
            span("cpu_op", "aten::item", at, 4, thread) | {"pid": last["pid"]},
            call("cudaStreamSynchronize", at + 1, 2, 900_001, thread) | {"pid": last["pid"]},
        ]

    def make_copies_pageable(self, factor: float = 3.0) -> None:
        """Every host-to-device copy comes from pageable memory, which takes it ``factor`` times as long."""
        for event in self.of("gpu_memcpy", "HtoD"):
            event["name"] = "Memcpy HtoD (Pageable -> Device)"
            event["dur"] *= factor

    def add_launch(self) -> None:
        """The last kernel of the last iteration is launched twice, the second one right after the first."""
        last = self.ranges()[-1]
        calls = [
            c for c in self.of("cuda_runtime", "cudaLaunchKernel") if last["ts"] <= c["ts"] <= last["ts"] + last["dur"]
        ]
        kernel = next(k for k in self.of("kernel") if k["args"]["correlation"] == calls[-1]["args"]["correlation"])
        for event, name in ((calls[-1], calls[-1]["name"]), (kernel, "void stray_kernel(float*)")):
            added = copy.deepcopy(event) | {"name": name, "ts": event["ts"] + event["dur"] + 0.5, "dur": 1.0}
            added["args"]["correlation"] = 900_002
            self.events.append(added)

    def drop_kernel(self, name: str) -> None:
        """The kernels so named do not run, nor are they launched."""
        gone = {k["args"]["correlation"] for k in self.of("kernel", name)}
        self.events[:] = [e for e in self.events if e.get("args", {}).get("correlation") not in gone]

    def pause(self, us: float) -> None:
        """The host does something else before the last iteration."""
        at = self.ranges()[-1]["ts"]
        for event in self.events:
            if event.get("ts", 0) >= at:
                event["ts"] += us
