"""Stands for NVML with one GPU."""

import os
from types import SimpleNamespace

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_P2P_CAPS_INDEX_READ, NVML_P2P_STATUS_OK = 1, 2, 0, 0, 0


class NVMLError(Exception):
    pass


def nvmlInit():
    pass


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return 1


def nvmlDeviceGetHandleByIndex(index):
    if index > 0:
        raise NVMLError("no such GPU")
    return index


def nvmlSystemGetDriverVersion():
    return "999.1"


def nvmlDeviceGetName(handle):
    return "Fake GPU"


def nvmlDeviceGetCudaComputeCapability(handle):
    return (9, 0)


def nvmlDeviceGetPowerUsage(handle):
    return 123_000


def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=80_000_000_000, used=int(os.environ.get("FAKE_USED", "0")))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return 0x4


def nvmlDeviceGetComputeRunningProcesses(handle):
    return []


def nvmlDeviceGetClockInfo(handle, kind):
    return 1980


def nvmlDeviceGetTemperature(handle, kind):
    raise NVMLError("not supported")
