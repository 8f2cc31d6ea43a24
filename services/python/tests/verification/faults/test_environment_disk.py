"""A crash of the simulated disk loses exactly what was not fsynced, even if a real Valkey wrote it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from daybreak_server.local.free_ports import free_port
from testkit.valkey import binary
from testkit.waiting import wait_until
from verification.faults.environment.disk import Disk, DiskAbsentError, FuseDisk, ShimDisk, SlowDisk


@pytest.fixture(params=[FuseDisk, ShimDisk])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Each kind of disk that this machine can provide."""
    try:
        disk = request.param(tmp_path / "disk")
    except DiskAbsentError as exc:
        pytest.skip(str(exc))
    yield disk
    disk.close()


def _inside(disk: Disk, code: str) -> str:
    """Run ``code`` in a process on the disk. The code can use ``folder``, the disk's folder."""
    program = f"import os, errno\nfolder = {str(disk.folder)!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, **disk.environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout.strip()


def test_only_what_was_fsynced_survives(disk: Disk) -> None:
    """What was written before a file's last fsync survives, even after a rename. All other bytes are lost."""
    _inside(
        disk,
        "a = os.open(folder + '/a', os.O_CREAT | os.O_WRONLY)\n"
        "os.write(a, b'kept'); os.fsync(a); os.write(a, b'more'); os.fdatasync(a); os.write(a, b'lost')\n"
        "b = os.open(folder + '/b', os.O_CREAT | os.O_WRONLY); os.write(b, b'all lost')\n"
        "os.rename(folder + '/a', folder + '/c')\n",
    )
    assert (disk.folder / "c").read_bytes() == b"keptmorelost"
    assert disk.crash() == 4 + 8
    assert (disk.folder / "c").read_bytes() == b"keptmore"
    assert (disk.folder / "b").read_bytes() == b""
    assert disk.fsyncs() == 2


def test_a_full_disk_fails_writes(disk: Disk) -> None:
    """Writes fail with ENOSPC while the disk is full, and succeed afterwards."""
    write = (
        "a = os.open(folder + '/a', os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
        "try: print(os.write(a, b'x'))\nexcept OSError as exc: print(-exc.errno)\n"
    )
    assert _inside(disk, write) == "1"
    disk.full(True)
    assert _inside(disk, write) == str(-errno.ENOSPC)
    disk.full(False)
    assert _inside(disk, write) == "1"


def test_a_slow_disk_loses_nothing(tmp_path: Path) -> None:
    """An fsync takes at least as long as configured. Written bytes survive without an fsync."""
    try:
        disk = SlowDisk(tmp_path / "disk", fsync_s=0.3)
    except DiskAbsentError as exc:
        pytest.skip(str(exc))
    fsync_s = _inside(
        disk,
        "import time\na = os.open(folder + '/a', os.O_CREAT | os.O_WRONLY); os.write(a, b'kept')\n"
        "began = time.monotonic(); os.fsync(a); print(time.monotonic() - began); os.write(a, b'more')\n",
    )
    assert float(fsync_s) >= 0.3
    assert disk.crash() == 0
    assert (disk.folder / "a").read_bytes() == b"keptmore"
    disk.close()


class Servers:
    """Runs real Valkey servers on the disk, one after the other, and ends each with SIGKILL."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, fsync: str) -> redis.Redis:
        options = {"port": str(free_port()), "dir": str(self._disk.folder), "appendfsync": fsync}
        options |= {"appendonly": "yes", "save": ""}
        self._process = subprocess.Popen(
            [str(binary()), *(part for name, value in options.items() for part in (f"--{name}", value))],
            cwd=self._disk.folder.parent,
            env={**os.environ, **self._disk.environment},
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(port=int(options["port"]))
        wait_until(lambda: _responds(client), 60, "the server")
        return client

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def servers(disk: Disk) -> Iterator[Servers]:
    servers = Servers(disk)
    yield servers
    servers.kill()


def _responds(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize(("fsync", "lost"), [("always", False), ("no", True)])
def test_a_server_keeps_what_it_fsynced(disk: Disk, servers: Servers, fsync: str, lost: bool) -> None:
    """In a crash, `appendfsync always` loses no acknowledged write, and `appendfsync no` loses the last writes."""
    with servers.start(fsync) as client:
        for number in range(300):
            client.rpush("list", number)
    servers.kill()
    assert (disk.crash() > 0) == lost
    with servers.start(fsync) as client:
        assert (client.llen("list") < 300) == lost
