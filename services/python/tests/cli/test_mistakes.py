"""Tests of typical first mistakes: before anything starts, a line says what the user must correct."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["dev", "up", "gateway"])
@pytest.mark.parametrize("workload", ["no_such_module:SPEC", "json:SPEC", "misspelt"])
def test_an_unknown_workload_gives_one_line_with_the_variable(
    command: str, workload: str, tmp_path: Path
) -> None:
    """The exit code is 2, the line has the exact name of the variable, and no process is started."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name("daybreakd")), command],
        env=os.environ
        | {"DAYBREAK_POOLS__MY_FRACTAL__WORKLOAD": workload, "DAYBREAK_REDIS__URL": "redis://127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "DAYBREAK_POOLS__MY_FRACTAL__WORKLOAD" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
