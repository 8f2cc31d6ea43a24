"""What the commands that run in a terminal say."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line at once: whoever reads a pipe sees it when it is said."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
