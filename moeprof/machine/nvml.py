"""The GPU's state as NVML tells it: clocks, power, why the clock is held back, who else is there.

nvidia-ml-py is a dependency of moeprof, so that nvidia-smi, which takes a process and a second a call, is never asked. A
reading takes a few milliseconds while ``held``, and is taken between timed phases, never inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from moeprof.storage.manifest import Gpu

POWER_CAP = "power cap"
# NVML's clock-event reasons that mean the GPU held itself back (nvml.h); idle, application and display settings are not
# among them
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
    """The NVML module, initialised; None where there is no package or no driver."""
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
    """NVML stays initialised (it counts its users), so that a reading inside takes no start."""
    with _nvml():
        yield


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML sees, with its state now; none where there is no driver."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_gpu(nvml, handle, index) for index, handle in enumerate(handles))


def gpu(uuid: str | None = None, own: Collection[int] = ()) -> Gpu | None:
    """The GPU of that UUID, as a worker names its own, or the first one; None where there is none. Processes ``own`` are
    not among its other processes."""
    with _nvml() as nvml:
        if nvml is None or not nvml.nvmlDeviceGetCount():
            return None
        handle = _named(nvml, uuid)
        index = _asker(nvml, handle)("nvmlDeviceGetIndex") or 0
        return _gpu(nvml, handle, index, own)


def _named(nvml: Any, uuid: str | None) -> Any:
    if uuid is not None:
        try:
            return nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        except (nvml.NVMLError, AttributeError):  # a slice of a GPU, or a driver that names it otherwise
            pass
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _asker(nvml: Any, handle: Any) -> Callable[..., Any]:
    def ask(name: str, *args: Any) -> Any:
        """One NVML reading; None where this GPU, driver or package does not give it."""
        reading = getattr(nvml, name, None)
        if reading is None:
            return None
        try:
            return reading(handle, *args)
        except nvml.NVMLError:
            return None

    return ask


def _gpu(nvml: Any, handle: Any, index: int, own: Collection[int] = ()) -> Gpu:
    ask = _asker(nvml, handle)
    capability, memory = ask("nvmlDeviceGetCudaComputeCapability"), ask("nvmlDeviceGetMemoryInfo")
    return Gpu(
        index=index,
        name=str(ask("nvmlDeviceGetName") or "unknown GPU"),
        memory_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        compute_capability=".".join(map(str, capability)) if capability else None,
        driver=_driver(nvml),
        sm_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_w=_watt(ask("nvmlDeviceGetPowerUsage")),
        throttle_reasons=_held_back(ask),
        other_processes=_others(ask("nvmlDeviceGetComputeRunningProcesses"), own),
        power_limit_w=_watt(ask("nvmlDeviceGetEnforcedPowerLimit")),
        ecc=_on(ask("nvmlDeviceGetEccMode")),
        mig=_on(ask("nvmlDeviceGetMigMode")),
    )


def _watt(milliwatt: int | None) -> float | None:
    return None if milliwatt is None else milliwatt / 1000


def _on(mode: Any) -> bool | None:
    """Of a mode that is given as [now, after the next reset], the one now."""
    return None if mode is None else bool(mode[0])


def _held_back(ask: Callable[..., Any]) -> tuple[str, ...]:
    """Drivers from 535 on call the reasons events, older ones throttling."""
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return tuple(name for bit, name in THROTTLES.items() if reasons & bit)


def _others(processes: Any, own: Collection[int]) -> int | None:
    """How many processes are not ``own``. In a container NVML may give numbers of another namespace, among which none of
    ours is found: then as many as are ours are taken off."""
    if processes is None:
        return None
    found = {int(p.pid) for p in processes}
    ours = found & set(own)
    return len(found - ours) if ours else max(len(processes) - len(own), 0)


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
