"""The GPUs of this machine, as NVIDIA's management library (NVML) lists them. Without the library, no GPU is listed.

NVML numbers GPUs in the order of the PCI bus, whereas CUDA begins with the fastest. So the environment of an
engine sets ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` beside ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterator, Sequence

from daybreak.wire import WorkerGpu

_log = logging.getLogger(__name__)
_LIBRARIES = ("libnvidia-ml.so.1", "libnvidia-ml.so")
_TEXT_BYTES = 96


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _NvmlError(Exception):
    pass


class Gpus:
    """Reads the GPUs. ``visible``: the value of CUDA_VISIBLE_DEVICES, which limits them; ``None`` for all."""

    def __init__(self, *, visible: str | None = None, libraries: Sequence[str] = _LIBRARIES) -> None:
        self._visible = None if visible is None else [name.strip() for name in visible.split(",")]
        self._nvml = _load(libraries)
        self._complained = False

    def read(self) -> list[WorkerGpu]:
        """The GPUs with their free memory. Empty if there are none, or they cannot be read."""
        if self._nvml is None:
            return []
        try:
            return list(self._list(self._nvml))
        except _NvmlError as exc:
            if not self._complained:
                self._complained = True
                _log.warning(
                    "the GPUs of this machine cannot be read, so no model is placed on them: %s", exc
                )
            return []

    def _list(self, nvml: ctypes.CDLL) -> Iterator[WorkerGpu]:
        count = ctypes.c_uint()
        _check(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), "count")
        for index in range(count.value):
            handle = ctypes.c_void_p()
            _check(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), "handle")
            name, uuid = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.create_string_buffer(_TEXT_BYTES)
            _check(nvml.nvmlDeviceGetUUID(handle, uuid, _TEXT_BYTES), "UUID")
            if not self._is_visible(index, uuid.value.decode()):
                continue
            _check(nvml.nvmlDeviceGetName(handle, name, _TEXT_BYTES), "name")
            memory = _Memory()
            _check(nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), "memory")
            yield WorkerGpu(
                index=index,
                name=name.value.decode(errors="replace"),
                memory_bytes=memory.total,
                memory_free_bytes=memory.free,
            )

    def _is_visible(self, index: int, uuid: str) -> bool:
        if self._visible is None:
            return True
        return any(
            name == str(index) or (name[:4] == "GPU-" and uuid.startswith(name)) for name in self._visible
        )


def environment_of(indices: Sequence[int], *, machine_has_gpus: bool) -> dict[str, str]:
    """The variables that give an engine these GPUs and no others; no variables on a machine without GPUs."""
    if not machine_has_gpus:
        return {}
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in indices),
    }


def _load(libraries: Sequence[str]) -> ctypes.CDLL | None:
    for library in libraries:
        with contextlib.suppress(OSError):
            nvml = ctypes.CDLL(library)
            code = nvml.nvmlInit_v2()
            if code == 0:
                return nvml
            _log.warning(
                "NVML is installed, but cannot be used (code %d), so no model is placed on a GPU", code
            )
            return None
    return None


def _check(code: int, what: str) -> None:
    if code != 0:
        raise _NvmlError(f"NVML answers with code {code} when asked for the {what} of a GPU")
