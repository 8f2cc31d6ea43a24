"""Free ports for the servers of tests, safe across concurrent test processes.

A port that the kernel just reported free may be taken before the server listens on it: by another xdist worker, or by
a client's connection. So ports come from below the range that the kernel assigns to connections. A lock on one byte
of a shared file (at the port's number) reserves each port for this test process until it ends; the kernel then
releases the lock, however the process ends. A server can therefore restart on its port.
"""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from contextlib import suppress
from pathlib import Path

from daybreak_server.local.instance import FORBIDDEN_PORT, is_free

_FIRST, _LAST = 20_000, 32_000
"""Above the ports that Ray reserves for its workers, and below the kernel's own range."""
_locks: dict[int, int] = {}
"""The descriptor of the lock file, by process id: a forked process needs its own locks."""
_tried: set[int] = set()


def free_port() -> int:
    """A free port on 127.0.0.1.

    While this process lives, no other test process of this user on this machine gets the port.
    """
    locks = _locks.get(os.getpid())
    if locks is None:
        file = Path(tempfile.gettempdir()) / f"daybreak-test-ports-{os.getuid()}"
        locks = _locks[os.getpid()] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _tried.clear()
    while True:
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        if port == FORBIDDEN_PORT or port in _tried:
            continue
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _tried.add(port)  # even if the port is not free, this process need not try it again
            if is_free(port):
                return port
