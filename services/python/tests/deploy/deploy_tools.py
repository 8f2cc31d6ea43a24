"""Runs external programs; a test whose program is not on PATH skips with a reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def try_run(*command: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program. :returns: its exit status and output."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not on PATH")
    return subprocess.run(
        [str(part) for part in command], check=False, input=given, text=True, capture_output=True
    )


def run(*command: str | Path, given: str = "") -> str:
    """Run a program that must succeed. :returns: its output."""
    done = try_run(*command, given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
