"""Stands for NVML with one GPU, or FAKE_GPUS of them. FAKE_NVML names a file of readings to come, one JSON object a line, taken by each reading of
the processes in turn: {"reasons": bits, "clock": MHz, "others": count}; what a line does not say, and what comes after the
last one, is ordinary. FAKE_NVML_1 names those of the second GPU, whose UUID is aaaa-1."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_P2P_CAPS_INDEX_READ, NVML_P2P_STATUS_OK = 1, 2, 0, 0, 0
ORDINARY = {"reasons": 0x4, "clock": 1980, "others": 0}
_now = dict(ORDINARY)


class NVMLError(Exception):
    pass


def nvmlInit():
    pass


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return int(os.environ.get("FAKE_GPUS", "1"))


def nvmlDeviceGetHandleByIndex(index):
    if index >= nvmlDeviceGetCount():
        raise NVMLError("no such GPU")
    return index


def nvmlDeviceGetHandleByUUID(uuid):
    index = {"GPU-aaaa-bbbb": 0, "GPU-aaaa-0": 0, "GPU-aaaa-1": 1}.get(uuid, nvmlDeviceGetCount())
    if index >= nvmlDeviceGetCount():
        raise NVMLError("no such GPU")
    _next("FAKE_NVML_1" if index else "FAKE_NVML")  # a phase is over: its state is read
    return index


def _next(variable):
    script = os.environ.get(variable)
    lines = Path(script).read_text().splitlines() if script else []
    _now.update(ORDINARY | (json.loads(lines[0]) if lines else {}))
    if lines:
        Path(script).write_text("\n".join(lines[1:]))


def nvmlDeviceGetIndex(handle):
    return handle


def nvmlSystemGetDriverVersion():
    return os.environ.get("FAKE_DRIVER", "999.1")


def nvmlDeviceGetName(handle):
    return "Fake GPU"


def nvmlDeviceGetCudaComputeCapability(handle):
    return (9, 0)


def nvmlDeviceGetPowerUsage(handle):
    return 123_000


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return 700_000


def nvmlDeviceGetEccMode(handle):
    return [1, 1]


def nvmlDeviceGetMigMode(handle):
    raise NVMLError("not supported")


def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=80_000_000_000, used=int(os.environ.get("FAKE_USED", "0")))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return _now["reasons"]


def nvmlDeviceGetComputeRunningProcesses(handle):
    workers = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [SimpleNamespace(pid=pid) for pid in (*workers, *range(4_000_000, 4_000_000 + _now["others"]))]


def nvmlDeviceGetClockInfo(handle, kind):
    return _now["clock"]


def nvmlDeviceGetTemperature(handle, kind):
    raise NVMLError("not supported")
