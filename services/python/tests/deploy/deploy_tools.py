"""Runs external programs. A test whose program is not on the PATH is skipped with a reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def try_run(*command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program. :returns: its exit status and output."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not on PATH")
    return subprocess.run(
        [str(part) for part in command], check=False, input=stdin, text=True, capture_output=True
    )


def run(*command: str | Path, stdin: str = "") -> str:
    """Run a program that must succeed. :returns: its output."""
    result = try_run(*command, stdin=stdin)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
