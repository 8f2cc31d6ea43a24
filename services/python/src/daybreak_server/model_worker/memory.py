"""The memory of this machine, or of the worker's container if the container may use less."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def total_and_free(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> tuple[int, int]:
    """The total and the free memory in bytes; ``(0, 0)`` if the files show neither the machine's memory nor a limit."""
    total, free = _of_machine(meminfo)
    with suppress(OSError, ValueError):
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text()) - _reclaimable(cgroup)
        if not total or limit < total:
            return limit, max(0, min(limit - used, free if total else limit))
    return total, free


def _of_machine(meminfo: Path) -> tuple[int, int]:
    sizes: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            name, _, size = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                sizes[name] = int(size.split()[0]) * 1024
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def _reclaimable(cgroup: Path) -> int:
    """Bytes that the container uses only to cache files."""
    with suppress(OSError):
        for line in (cgroup / "memory.stat").read_text().splitlines():
            name, _, size = line.partition(" ")
            if name == "inactive_file":
                return int(size)
    return 0
