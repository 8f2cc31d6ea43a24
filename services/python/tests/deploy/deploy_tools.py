"""Programs of other people that tests ask; a test whose program is not on PATH skips, with a word."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def ask(*command: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """How a program ended and what it said."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not on PATH")
    return subprocess.run(
        [str(one) for one in command], check=False, input=given, text=True, capture_output=True
    )


def run(*command: str | Path, given: str = "") -> str:
    """What a program says that must not fail."""
    done = ask(*command, given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
