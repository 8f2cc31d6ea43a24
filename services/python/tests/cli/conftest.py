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
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str


Daybreakd = Callable[..., Done]


@pytest.fixture
def daybreakd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daybreakd:
    """Runs a command in this process, in an empty folder, with no DAYBREAK variables but those given."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DAYBREAK_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **environ: str) -> Done:
        result = CliRunner().invoke(app, arguments, env=environ)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def in_a_process(program: str, *, environ: Mapping[str, str] | None = None) -> Done:
    """Run Python code in a fresh process, where the tests have imported nothing."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environ or {})},
    )
    return Done(done.returncode, done.stdout, done.stderr)
