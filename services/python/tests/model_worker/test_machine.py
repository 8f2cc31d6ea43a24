"""What a worker reads from its machine. In place of NVML, the tests compile a small library with the same functions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak_server.model_worker.gpus import Gpus, environment_of
from daybreak_server.model_worker.memory import total_and_free

_NVML = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { strncpy(name, "NVIDIA H100", size); return 0; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
    strncpy(uuid, (long)device == 1 ? "GPU-aaaa-1" : "GPU-bbbb-2", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *found) {
    found->total = 80ULL << 30; found->free = (long)device == 1 ? 80ULL << 30 : FREE; return FAILS; }
"""


def nvml(folder: Path, *, fails: int = 0) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("a C compiler is not installed")
    source, library = folder / "nvml.c", folder / f"libnvml{fails}.so"
    source.write_text(_NVML)
    options = ["-shared", "-fPIC", "-w", "-DFREE=5368709120ULL", f"-DFAILS={fails}"]
    subprocess.run(["gcc", *options, source, "-o", library], check=True)
    return library


def test_gpus_have_names_and_memory(tmp_path: Path) -> None:
    first, second = Gpus(libraries=[str(nvml(tmp_path))]).read()
    assert (first.index, first.name, first.memory_bytes, first.memory_free_bytes) == (
        *(0, "NVIDIA H100"),
        *(80 << 30, 80 << 30),
    )
    assert (second.index, second.memory_free_bytes) == (1, 5 << 30)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("1", [1]), ("1,0", [0, 1]), ("GPU-bbbb", [1]), ("GPU-aaaa-1, 1", [0, 1]), ("", []), ("-1", [])],
)
def test_only_visible_gpus_are_offered(tmp_path: Path, visible: str, indices: list[int]) -> None:
    found = Gpus(visible=visible, libraries=[str(nvml(tmp_path))]).read()
    assert [gpu.index for gpu in found] == indices


def test_a_machine_without_nvml_or_with_a_broken_one_has_no_gpus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Gpus(libraries=["libnone.so"]).read() == []
    assert not caplog.records
    broken = Gpus(libraries=[str(nvml(tmp_path, fails=15))])
    assert broken.read() == broken.read() == []
    assert [record.message for record in caplog.records] == [
        "the GPUs of this machine cannot be read, so no model is placed on them: "
        "NVML answers with code 15 when asked for the memory of a GPU"
    ]


def test_an_engine_sees_its_gpus_in_the_order_of_nvml() -> None:
    expected = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,3"}
    assert environment_of([0, 3], machine_has_gpus=True) == expected
    assert environment_of([], machine_has_gpus=True)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment_of([], machine_has_gpus=False) == {}


def test_the_memory_of_a_container_counts_if_it_is_less_than_that_of_its_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\n")
    assert total_and_free(meminfo, tmp_path / "none") == (1_024_000, 614_400)
    (tmp_path / "memory.max").write_text("max\n")
    assert total_and_free(meminfo, tmp_path) == (1_024_000, 614_400)
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert total_and_free(meminfo, tmp_path) == (500_000, 300_000)
    assert total_and_free(tmp_path / "none", tmp_path / "none") == (0, 0)


def test_a_worker_loads_neither_ray_nor_torch_nor_redis() -> None:
    program = (
        "import sys, daybreak_server.entrypoints.worker; "
        "print(sorted({'ray', 'torch', 'redis', 'boto3', 'numpy', 'kubernetes'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
