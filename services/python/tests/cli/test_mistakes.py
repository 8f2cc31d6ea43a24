"""First mistakes of a newcomer: each gets a line that says what to correct, before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["dev", "up", "gateway"])
@pytest.mark.parametrize("workload", ["no_such_module:SPEC", "json:SPEC", "misspelt"])
def test_a_workload_that_cannot_be_found_is_a_line(command: str, workload: str, tmp_path: Path) -> None:
    """Exit code 2, the exact name of the variable, no traceback, and no process was started."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("daybreakd")), command],
        env=os.environ
        | {"DAYBREAK_POOLS__MY_FRACTAL__WORKLOAD": workload, "DAYBREAK_REDIS__URL": "redis://127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "DAYBREAK_POOLS__MY_FRACTAL__WORKLOAD" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
