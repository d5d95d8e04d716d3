"""A graphics processor where there is none: NVIDIA's library as the platform calls it."""

from types import SimpleNamespace
from typing import Any


class NvmlError(Exception):
    """What the library raises."""


class Nvml:
    """NVIDIA's library as this module calls it, with one card that does not tell its power."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, _: int) -> bytes:
        return b"A card"

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:
        return SimpleNamespace(used=3 << 30, total=8 << 30)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> Any:
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetTemperature(self, _: int, __: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:
        raise self.NVMLError("not supported")
