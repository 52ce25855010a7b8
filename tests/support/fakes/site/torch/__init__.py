"""Stands for torch with one CUDA GPU: just what moeprof's worker asks of it."""

import time
from types import SimpleNamespace

__version__ = "2.99.0+fake"
version = SimpleNamespace(cuda="99.0")


class _Event:
    def __init__(self, enable_timing=False):
        self.at = 0.0

    def record(self, stream=None):
        self.at = time.perf_counter()

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


cuda = SimpleNamespace(
    is_available=lambda: True,
    device_count=lambda: 1,
    get_device_capability=lambda index: (9, 0),
    get_device_properties=lambda index: SimpleNamespace(uuid="aaaa-bbbb"),
    get_device_name=lambda index: "Fake GPU",
    can_device_access_peer=lambda a, b: False,
    synchronize=lambda: None,
    Event=_Event,
    cudart=lambda: SimpleNamespace(cudaProfilerStart=lambda: 0, cudaProfilerStop=lambda: 0),
)
