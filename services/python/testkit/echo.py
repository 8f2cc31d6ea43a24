"""The expected output of an echo task."""

from __future__ import annotations

import hashlib


def echo_text(message: str, steps: int) -> bytes:
    """The content of `echo.txt` for a message after ``steps`` steps, computed independently of the workload."""
    digest = hashlib.sha256(message.encode()).hexdigest()
    for number in range(1, steps + 1):
        digest = hashlib.sha256(f"{digest}/{number}".encode()).hexdigest()
    return f"{message}\n{steps} steps {digest}\n".encode()
