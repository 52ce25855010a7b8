"""The state of a GPU as NVML reports it: clocks, power, reasons for throttling, other processes.

NVML is read through nvidia-ml-py: nvidia-smi would take a process and a second a call. A reading takes a few milliseconds
while ``held``. Readings are taken between timed phases, never inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moeprof.storage.manifest import Gpu

POWER_CAP = "power cap"
# NVML's clock-event reasons of a throttled GPU (nvml.h), without those for idle, application and display settings
THROTTLES = {
    0x4: POWER_CAP,
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


@contextmanager
def _nvml() -> Iterator[Any]:
    """The NVML module, initialised; None if there is no package or no driver."""
    try:
        import pynvml
    except ModuleNotFoundError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@contextmanager
def held() -> Iterator[None]:
    """Keep NVML initialised (it counts its users), so that a reading inside the block does not initialise it."""
    with _nvml():
        yield


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML sees, with its present state; empty if there is no driver."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_gpu(nvml, handle, index) for index, handle in enumerate(handles))


@dataclass(frozen=True)
class Activity:
    """What a GPU does now: the share of the last moments in which a kernel ran, and its power."""

    index: int
    busy_percent: int | None
    power_w: float | None

    def __str__(self) -> str:
        busy = f" {self.busy_percent} % busy" if self.busy_percent is not None else ""
        return f"GPU {self.index}{busy}" + (f", {self.power_w:.0f} W" if self.power_w is not None else "")


def activity() -> tuple[Activity, ...]:
    """What every GPU does now; empty if there is no driver."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        readers = [_reader(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_activity(index, read) for index, read in enumerate(readers))


def _activity(index: int, read: Callable[..., Any]) -> Activity:
    rates = read("nvmlDeviceGetUtilizationRates")
    return Activity(index, None if rates is None else int(rates.gpu), _watts(read("nvmlDeviceGetPowerUsage")))


def gpu(uuid: str | None = None, own_pids: Collection[int] = ()) -> Gpu | None:
    """The GPU of that UUID or number, or the first GPU; None if there is none. ``own_pids`` are not counted as other processes."""
    with _nvml() as nvml:
        if nvml is None or not nvml.nvmlDeviceGetCount():
            return None
        handle = _handle(nvml, uuid)
        index = _reader(nvml, handle)("nvmlDeviceGetIndex") or 0
        return _gpu(nvml, handle, index, own_pids)


def _handle(nvml: Any, uuid: str | None) -> Any:
    if uuid is not None:
        try:
            if uuid.isdecimal():
                return nvml.nvmlDeviceGetHandleByIndex(int(uuid))
            return nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        except (nvml.NVMLError, AttributeError):  # a slice of a GPU, or a driver with other names
            pass
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _reader(nvml: Any, handle: Any) -> Callable[..., Any]:
    """``read(name, *args)`` calls the NVML function ``name`` on the GPU; None if GPU, driver or package lack it."""

    def read(name: str, *args: Any) -> Any:
        function = getattr(nvml, name, None)
        if function is None:
            return None
        try:
            return function(handle, *args)
        except nvml.NVMLError:
            return None

    return read


def _gpu(nvml: Any, handle: Any, index: int, own_pids: Collection[int] = ()) -> Gpu:
    read = _reader(nvml, handle)
    capability, memory = read("nvmlDeviceGetCudaComputeCapability"), read("nvmlDeviceGetMemoryInfo")
    return Gpu(
        index=index,
        name=str(read("nvmlDeviceGetName") or "unknown GPU"),
        memory_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        compute_capability=".".join(map(str, capability)) if capability else None,
        driver=_driver(nvml),
        sm_clock_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        temperature_c=read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_w=_watts(read("nvmlDeviceGetPowerUsage")),
        throttle_reasons=_throttle_reasons(read),
        other_processes=_other_processes(read("nvmlDeviceGetComputeRunningProcesses"), own_pids),
        power_limit_w=_watts(read("nvmlDeviceGetEnforcedPowerLimit")),
        ecc=_is_on(read("nvmlDeviceGetEccMode")),
        mig=_is_on(read("nvmlDeviceGetMigMode")),
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _is_on(mode: Any) -> bool | None:
    """NVML reports a mode as [now, after the next reset]."""
    return None if mode is None else bool(mode[0])


def _throttle_reasons(read: Callable[..., Any]) -> tuple[str, ...]:
    """Drivers from 535 on name them event reasons, older ones throttle reasons."""
    reasons = read("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = read("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return tuple(name for bit, name in THROTTLES.items() if reasons & bit)


def _other_processes(processes: Any, own_pids: Collection[int]) -> int | None:
    """The number of processes that are not in ``own_pids``. In a container NVML may report ids of another namespace, which
    never match: then the number of ``own_pids`` is subtracted."""
    if processes is None:
        return None
    pids = {int(process.pid) for process in processes}
    matched = pids & set(own_pids)
    return len(pids - matched) if matched else max(len(processes) - len(own_pids), 0)


def _driver(nvml: Any) -> str | None:
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None


def linked() -> bool:
    """Whether GPU 0 and GPU 1 can read and write each other's memory."""
    with _nvml() as nvml:
        if nvml is None:
            return False
        try:
            first, second = (nvml.nvmlDeviceGetHandleByIndex(i) for i in (0, 1))
            status = nvml.nvmlDeviceGetP2PStatus(first, second, nvml.NVML_P2P_CAPS_INDEX_READ)
            return bool(status == nvml.NVML_P2P_STATUS_OK)
        except nvml.NVMLError:
            return False
