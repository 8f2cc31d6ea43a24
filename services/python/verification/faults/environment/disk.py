"""A disk for a server's data. The disk can lose what was not fsynced, and it can be full.

Two kinds implement :class:`Disk`:

* :class:`FuseDisk` is a file system in memory. It needs Linux, ``mfusepy``, libfuse and the right to mount.
* :class:`ShimDisk` preloads a small library into the server's process. At each successful fsync, the library logs the
  length that the file had before the call, and ``crash`` truncates each file to its last logged length. It needs Linux
  and a C compiler.

To simulate a power cut, kill the server and then call ``crash``. :class:`SlowDisk` is a shim disk whose fsyncs take
long. It loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from verification.faults.environment.preload import PreloadAbsentError, build

_PROGRAM = Path(__file__).with_name("fuse.py")
_SOURCE = Path(__file__).with_name("forget.c")


class DiskAbsentError(RuntimeError):
    """This machine cannot provide such a disk. The message says what is missing."""


class Disk(Protocol):
    """A folder for a server's data, with faults."""

    kind: str
    folder: Path
    environment: Mapping[str, str]
    """Environment variables that the server needs when it starts."""

    def crash(self) -> int:
        """Lose what was not fsynced. The server must be dead. :returns: the number of bytes lost."""

    def full(self, on: bool) -> None:
        """Make writes fail with ENOSPC, at least those that make a file longer. If not ``on``, let them succeed."""

    def fsyncs(self) -> int:
        """The number of fsyncs that have succeeded so far."""

    def close(self) -> None:
        """Remove the disk."""


class FuseDisk:
    """A file system in memory; see ``fuse.py``."""

    kind = "FUSE"

    def __init__(self, folder: Path) -> None:
        """:raises DiskAbsentError: if this machine cannot mount it."""
        self.folder = folder
        self.environment: Mapping[str, str] = {}
        self._control = folder / ".control"
        self._log = folder.with_name(f"{folder.name}.log")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise DiskAbsentError("this user may not open /dev/fuse")
        folder.mkdir(parents=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 20
        while not self._control.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                output = self._log.read_text(errors="replace").strip().splitlines()
                raise DiskAbsentError(
                    f"FUSE did not mount: {output[-1] if output else 'no response in 20 s'}"
                )
            time.sleep(0.01)

    def crash(self) -> int:
        """Lose what was not fsynced. :returns: the number of bytes lost."""
        before = self._state()["forgotten_bytes"]
        self._control.write_bytes(b"crash")
        return self._state()["forgotten_bytes"] - before

    def full(self, on: bool) -> None:
        """Keep all files from growing, or let them grow again."""
        self._control.write_bytes(f"limit {self._state()['bytes']}".encode() if on else b"limit none")

    def fsyncs(self) -> int:
        """The number of fsyncs that the file system has counted."""
        return self._state()["fsyncs"]

    def close(self) -> None:
        """Unmount the disk, which ends the file system's process."""
        for command in (["umount", str(self.folder)], ["umount", "-l", str(self.folder)]):
            if self._process.poll() is not None or not os.path.ismount(self.folder):
                break
            subprocess.run(command, check=False, capture_output=True, timeout=30)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _state(self) -> dict[str, int]:
        state: dict[str, int] = json.loads(self._control.read_text())
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShimDisk:
    """A plain folder, and a library that logs the length of a file at each fsync."""

    kind = "fsync log"

    def __init__(self, folder: Path) -> None:
        """:raises DiskAbsentError: if this machine does not run Linux or has no C compiler."""
        self.folder = folder
        folder.mkdir(parents=True)
        self._log = folder.with_name(f"{folder.name}.fsyncs")
        self._flag = folder.with_name(f"{folder.name}.full")
        try:
            library = build(_SOURCE, folder.with_name(f"{folder.name}.so"))
        except PreloadAbsentError as exc:
            raise DiskAbsentError(str(exc)) from exc
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FORGET_FOLDER": str(folder.resolve()),
            "FORGET_LOG": str(self._log),
            "FORGET_FULL": str(self._flag),
        }

    def crash(self) -> int:
        """Truncate each file to its last logged length, or to 0 if it has none. :returns: the number of bytes lost."""
        durable: dict[int, int] = {}
        for line in self._lines():
            inode, length = line.split()
            durable[int(inode)] = int(length)
        lost_bytes = 0
        for path in self.folder.rglob("*"):
            if path.is_file():
                status = path.stat()
                keep = min(status.st_size, durable.get(status.st_ino, 0))
                lost_bytes += status.st_size - keep
                os.truncate(path, keep)
        return lost_bytes

    def full(self, on: bool) -> None:
        """Create or remove the flag file that the library checks at each write."""
        if on:
            self._flag.touch()
        else:
            self._flag.unlink(missing_ok=True)

    def fsyncs(self) -> int:
        """The number of lines in the log."""
        return len(self._lines())

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SlowDisk(ShimDisk):
    """A plain folder whose fsyncs take long. It loses nothing that was written."""

    def __init__(self, folder: Path, *, fsync_s: float) -> None:
        """:raises DiskAbsentError: if this machine does not run Linux or has no C compiler."""
        super().__init__(folder)
        self.kind = f"fsyncs of {fsync_s:g} s"
        self.environment = {**self.environment, "FORGET_SLOW_MS": str(round(fsync_s * 1000))}

    def crash(self) -> int:
        """Lose nothing. This simulates a crash of the server only, not of the machine."""
        return 0


def open_disk(folder: Path) -> FuseDisk | ShimDisk:
    """A FUSE disk if this machine can mount one, else a shim disk.

    :raises DiskAbsentError: if this machine can provide neither.
    """
    try:
        return FuseDisk(folder)
    except DiskAbsentError as fuse:
        with contextlib.suppress(OSError):
            folder.rmdir()
        try:
            return ShimDisk(folder)
        except DiskAbsentError as shim:
            raise DiskAbsentError(f"{fuse}; {shim}") from shim
