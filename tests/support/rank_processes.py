"""Run cases of expert_parallel in several processes at once, and bring back what each rank found.

As a command (``rank_processes.py RANK COUNT DEVICE FOLDER``) it is one rank: it reads FOLDER/cases.json and writes FOLDER/found-RANK.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

TIMEOUT_S = 240
COLLECTIVE_S = 60
SMALL = {"tokens": 48, "hidden": 32, "inner": 24}


def run(count: int, device: str, folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Name -> what each rank found, in the order of the ranks. A case: ``do`` (a function below), ``set`` (parameters), the rest
    its own."""
    from fakes.forked import WITH_TORCH

    (folder / "cases.json").write_text(json.dumps(cases))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NCCL_NVLS_ENABLE": "0", "LOCAL_WORLD_SIZE": str(count)}
    logs, running = [folder / f"log-{rank}" for rank in range(count)], []
    try:
        for rank, log in enumerate(logs):
            words = ("-P", __file__, str(rank), str(count), device, str(folder))
            with log.open("w") as file:
                running.append(WITH_TORCH.start(words, Path.cwd(), environment, stderr=file.fileno()))
        statuses = [process.wait(TIMEOUT_S) for process in running]
    finally:
        for process in running:
            process.close()
    assert statuses == [0] * count, "\n".join(log.read_text() for log in logs)
    found = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(count)]
    return {name: [of_rank[name] for of_rank in found] for name in cases}


def main() -> None:
    """One rank."""
    import torch
    import torch.distributed as dist

    from moeprof.workload.find import load

    rank, count, device, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )  # fmt: skip
    workload, found = load("expert_parallel"), {}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        params = workload.params(case.get("preset", "tiny"), {k: str(v) for k, v in case.get("set", {}).items()})
        found[name] = DO[case["do"]](case, params, device, folder)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def proven(params: dict[str, Any], device: str, step: Any) -> dict[str, Any]:
    """The proof of a step and what stands beside its time."""
    from moeprof.workload.find import load

    proof = load("expert_parallel").prove(params, device, step)
    return asdict(proof) | {"facts": step.facts(), "flops": step.flops, "bytes_moved": step.bytes_moved}


def variant(case: dict[str, Any], params: dict[str, Any], device: str, folder: Path) -> dict[str, Any]:
    """Prove the variant ``name``, ``times`` times after another."""
    from moeprof.workload.find import load

    step = load("expert_parallel").variant(case["name"]).build(params, device)
    for _ in range(case.get("times", 1)):
        found = proven(params, device, step)
    return found


def fault(case: dict[str, Any], params: dict[str, Any], device: str, folder: Path) -> dict[str, Any]:
    """Prove the planted fault ``name``."""
    from moeprof.workload.find import load

    return proven(params, device, load("expert_parallel").faults[case["name"]](params, device))


def altered(case: dict[str, Any], params: dict[str, Any], device: str, folder: Path) -> dict[str, Any]:
    """Prove a baseline of which rank ``rank`` changes one element, or (``rank`` -1) that does not run at all."""
    import torch.distributed as dist

    from moeprof.workload.find import load

    step = load("expert_parallel").variant("baseline").build(params, device)

    def changed() -> None:
        step.run()
        if dist.get_rank() == case["rank"]:
            step.output()[3, 7] += 0.3 * step.output().square().mean().sqrt()

    step.run()
    return proven(params, device, replace(step, run=(lambda: None) if case["rank"] < 0 else changed))


class FileBuffer:
    """A shared buffer in files that all ranks map, in place of symmetric memory on a machine without a GPU."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, folder: Path) -> None:
        import torch.distributed as dist

        self.name, self.shape, self.dtype, self.folder, self.me = name, shape, dtype, folder, dist.get_rank()
        self.tensor = self.of(self.me).zero_()

    def of(self, rank: int) -> Any:
        import torch

        size = 1
        for length in self.shape:
            size *= length
        return torch.from_file(str(self.folder / f"{self.name}-{rank}"), shared=True, size=size, dtype=self.dtype).view(
            self.shape
        )

    def put_signal(self, rank: int, channel: int) -> None:
        self._until(signal := self.folder / f"{self.name}-{self.me}-{rank}-{channel}.signal", there=False)
        signal.touch()

    def wait_signal(self, rank: int, channel: int) -> None:
        self._until(signal := self.folder / f"{self.name}-{rank}-{self.me}-{channel}.signal", there=True)
        signal.unlink()

    def _until(self, signal: Path, there: bool) -> None:
        end = time.monotonic() + COLLECTIVE_S
        while signal.exists() != there:
            assert time.monotonic() < end, f"{signal.name} stays {'away' if there else 'there'}"
            time.sleep(0.0005)


def puts(case: dict[str, Any], params: dict[str, Any], device: str, folder: Path) -> dict[str, Any]:
    """Prove peer_copy's exchange over files; rank 1's rows come ``late`` by so many seconds, ``deaf`` ranks do not wait for rows."""
    import torch.distributed as dist

    from moeprof.workloads.expert_parallel import overlap, peer_copy, workload
    from moeprof.workloads.expert_parallel.faults import Fault

    shared_buffers: dict[str, Any] = {}
    here = folder / case["folder"]
    here.mkdir(exist_ok=True)

    def shared(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        shared_buffers[name] = FileBuffer(name, shape, dtype, here)
        return shared_buffers[name].tensor

    layer = workload._parts(params, device, params["chunks"], Fault(), shared)

    class LatePeerCopies(peer_copy.PeerCopies):
        def dispatch(self, chunk: int) -> None:
            time.sleep(case.get("late", 0.0) if dist.get_rank() == 1 else 0.0)
            super().dispatch(chunk)

    exchange = LatePeerCopies(layer.layout, layer.buffers, shared_buffers, wait_for_rows=not case.get("deaf"))

    return proven(params, device, workload._step(layer, lambda: overlap.iterate(layer, exchange, overlap.Sequential())))


DO = {"variant": variant, "fault": fault, "altered": altered, "puts": puts}

if __name__ == "__main__":
    main()
