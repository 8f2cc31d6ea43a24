"""A log handler for processes that Ray starts. It writes to the log of the container, which ``kubectl logs`` shows.

Ray redirects the standard error of these processes to files inside the pod. But a process may open the standard error
of its container's first process, if both run as the same user. The container runtime reads this
standard error as the container's log.
"""

from __future__ import annotations

import json
import logging
import os
import select
from pathlib import Path

CONTAINER_STDERR = Path("/proc/1/fd/2")
"""The standard error of the container's first process: the container's log."""
LINE_BYTES = select.PIPE_BUF
"""The maximum length of a line, newline included. The kernel writes such a line into a pipe as a whole, so the lines of
several ranks do not mix."""


class ContainerHandler(logging.Handler):
    """Writes lines to the standard error of this process's container.

    It never waits for the container runtime. If the runtime reads too slowly, the handler drops lines. Once the handler
    can write again, it first writes a line that says how many it dropped.

    :raises OSError: if the standard error cannot be opened.
    """

    def __init__(self, path: Path = CONTAINER_STDERR) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._dropped = 0
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or count it as dropped."""
        try:
            self.write(self.format(record).encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped. ``line`` has no newline at its end."""
        if self._dropped:
            note = {"level": "warning", "logger": __name__, "message": f"{self._dropped} lines were dropped"}
            if not self._write(json.dumps(note).encode()):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._write(line):
            self._dropped += 1

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _write(self, line: bytes) -> bool:
        try:
            os.write(self._fd, line + b"\n")
        except OSError:  # the pipe is full, or its reader is gone
            return False
        return True
