"""Makes the real torch say in a worker that there are two GPUs, and NVML FAKE_GPUS of them, so that ranks walk the GPU path on a
CPU: gloo stands for NCCL; tensors on "cuda" are the workload's affair."""

import importlib.util
import runpy
import sys
from pathlib import Path


class _Event:
    def __init__(self, enable_timing=False):
        self.at = 0.0

    def record(self, stream=None):
        import time

        self.at = time.perf_counter()

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


def _pretend():
    from types import SimpleNamespace

    import torch
    from torch import distributed

    given = distributed.init_process_group
    fakes = {
        "is_available": lambda: True, "device_count": lambda: 2, "get_device_capability": lambda index: (9, 0),
        "get_device_properties": lambda index: SimpleNamespace(uuid=f"aaaa-{index}"), "get_device_name": lambda index: "Fake GPU",
        "can_device_access_peer": lambda a, b: True, "synchronize": lambda: None, "set_device": lambda index: None, "Event": _Event,
        "cudart": lambda: SimpleNamespace(cudaProfilerStart=lambda: 0, cudaProfilerStop=lambda: 0),
    }  # fmt: skip
    for name, fake in fakes.items():
        setattr(torch.cuda, name, fake)
    distributed.init_process_group = lambda backend, device_id=None, **words: given("gloo", **words)


def _load_nvml():
    spec = importlib.util.spec_from_file_location("pynvml", Path(__file__).parent.parent / "site" / "pynvml.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["pynvml"] = module


runpy.run_path(str(Path(__file__).parent.parent / "clocksite" / "sitecustomize.py"))
_load_nvml()
if "moeprof.worker" in sys.orig_argv:
    _pretend()
