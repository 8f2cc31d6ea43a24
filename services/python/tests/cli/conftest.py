"""Runs ``daybreakd`` in tests: in this process, or in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daybreak_server.cli.main import app


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command."""

    code: int
    out: str
    err: str


Daybreakd = Callable[..., CommandResult]


@pytest.fixture
def daybreakd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daybreakd:
    """Run a command in this process, in an empty folder.

    The command sees only the DAYBREAK variables in ``environ``.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DAYBREAK_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **environ: str) -> CommandResult:
        outcome = CliRunner().invoke(app, arguments, env=environ)
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return CommandResult(outcome.exit_code, outcome.stdout, outcome.stderr)

    return run


def in_new_process(program: str, *, environ: Mapping[str, str] | None = None) -> CommandResult:
    """Run Python code in a fresh process, where the tests have imported nothing."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environ or {})},
    )
    return CommandResult(result.returncode, result.stdout, result.stderr)
