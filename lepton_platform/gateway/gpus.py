"""The graphics processors of this machine, by NVIDIA's own library; where there is none, there is nothing to tell."""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

logger = logging.getLogger("lepton.gateway")


@dataclass(frozen=True)
class Gpu:
    """One of them. ``busy``: share of the last moment in which it computed, 0 to 1; degrees Celsius, watts."""

    index: int
    name: str
    busy: float
    memory_used_bytes: int
    memory_bytes: int
    temperature_c: float
    power_w: float | None


@cache
def library() -> Any | None:
    """NVML, started; ``None`` where there is no driver. Asked once a process."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:  # no driver, no card, no right to look
        logger.debug("no graphics processors are seen: %s", error)
        return None
    return pynvml


def read(nvml: Any | None = None) -> list[Gpu]:
    """What each does now. Those after one that cannot be read are left out."""
    nvml = library() if nvml is None else nvml
    if nvml is None:
        return []
    found = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            found.append(_read(nvml, index))
    except nvml.NVMLError as error:
        logger.warning("a graphics processor cannot be read: %s", error)
    return found


def _read(nvml: Any, index: int) -> Gpu:
    card = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, name = nvml.nvmlDeviceGetMemoryInfo(card), nvml.nvmlDeviceGetName(card)
    try:
        power = nvml.nvmlDeviceGetPowerUsage(card) / 1e3  # milliwatts
    except nvml.NVMLError:  # some cards do not say
        power = None
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        busy=nvml.nvmlDeviceGetUtilizationRates(card).gpu / 100,
        memory_used_bytes=memory.used,
        memory_bytes=memory.total,
        temperature_c=float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        power_w=power,
    )
