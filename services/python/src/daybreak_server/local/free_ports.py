"""Free ports of this machine for the servers of an instance, safe across processes that choose at the same time.

A port that is free now may be taken before the server listens on it: by another process that chooses a port, or by a
client's connection, whose port the kernel chooses. So ports come from below the range that the kernel chooses from. A
lock on one byte of a shared file (at the port's number) reserves a port for this process, so the port stays reserved
while its server restarts. When the process ends, in whatever way, the kernel releases the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path

from daybreak_server.local.instance import write_atomically

_FIRST, _LAST = 20_000, 32_000
"""Above the ports of Ray's workers (10,002 to 19,999), and below the kernel's own range (from 32,768 on Linux)."""
_DRAWS = 2_000

_reserving = threading.Lock()
_files: dict[int, int] = {}
"""The descriptor of the file with the locks, by process id: a forked process needs its own locks. -1 without locks."""
_reserved: set[int] = set()
"""The ports that this process has reserved. A lock does not block the process that holds it, so the locks alone would
let this process reserve a port twice."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(_family(host)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now. While this process lives, no other call of this function returns the port, in this
    process or in another process of this user on this machine.

    :raises OSError: when ``host`` is no address of this machine, or no free port is found.
    """
    with socket.socket(_family(host)) as sock:
        sock.bind((host, 0))
    for _ in range(_DRAWS):
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        if _reserve(port) and is_free(port, host):
            return port
    raise OSError(
        errno.EADDRINUSE, f"none of {_DRAWS} random ports from {_FIRST} to {_LAST - 1} is free on {host}"
    )


def sticky_port(file: Path, *, host: str = "127.0.0.1") -> int:
    """The port in ``file`` if it is still free, else another free port, which is written to ``file``.

    :raises OSError: when ``host`` is no address of this machine, no free port is found, or the file cannot be written.
    """
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = 0
    ours = _FIRST <= port < _LAST and (_reserve(port) or port in _reserved)
    if not ours or not is_free(port, host):
        port = free_port(host)
        write_atomically(file, str(port))
    return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _reserve(port: int) -> bool:
    """Reserve a port. Returns whether it was not reserved before."""
    with _reserving:
        file = _files.get(os.getpid())
        if file is None:
            _reserved.clear()  # in a forked process: these are the ports of its parent
            file = _files[os.getpid()] = _open_locks()
        if port in _reserved:
            return False
        if file >= 0:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except (BlockingIOError, PermissionError):  # another process holds the lock
                return False
            except OSError:  # a file system without locks
                _files[os.getpid()] = -1
        _reserved.add(port)
        return True


def _open_locks() -> int:
    path = Path(tempfile.gettempdir()) / f".daybreak-ports-{os.getuid()}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # a folder that is read-only, or a file of somebody else: ports are chosen without locks
        return -1
