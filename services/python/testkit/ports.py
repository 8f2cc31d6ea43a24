"""Free ports for servers that tests start, also while other test processes look for theirs.

A port that the kernel has just found free may be gone when the server that it is for begins to listen: another xdist
worker, or a client's connection, takes it. So ports come from below the range that the kernel hands out, and a lock
on one byte of a file (the port's number is its place) keeps each for the test process that got it, for its life. The
kernel lets go of the lock when the process ends, however it ends. A server can be started again on its port.
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
"""Above the ports of Ray's workers, of which it lets no other part of it have one; below the kernel's own."""
_locks: dict[int, int] = {}
"""The open file of each test process that has asked: a forked one has locks of its own."""
_mine: set[int] = set()


def free_port() -> int:
    """A port on 127.0.0.1 that is free, and that no other test process of this machine gets while this one lives."""
    locks = _locks.get(os.getpid())
    if locks is None:
        file = Path(tempfile.gettempdir()) / f"daybreak-test-ports-{os.getuid()}"
        locks = _locks[os.getpid()] = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _mine.clear()
    while True:
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        if port == FORBIDDEN_PORT or port in _mine:
            continue
        with suppress(BlockingIOError, PermissionError):
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _mine.add(port)  # whether it is free or not: this process need not look at it again
            if is_free(port):
                return port
