"""Tests that the Makefile runs only programs of ``verification`` that exist. Programs in shell loops count too."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
RECIPE = re.compile(r"^([a-z0-9-]+):.*\n((?:\t.*\n)+)", re.MULTILINE)
TARGETS = sorted(
    {
        target
        for target, recipe in RECIPE.findall((ROOT / "Makefile").read_text())
        if "-m verification." in recipe
    }
    | {"bench", "faults", "gpu"}
)


@pytest.mark.parametrize("target", TARGETS)
def test_each_program_of_a_target_exists_and_can_be_run(target: str, tmp_path: Path) -> None:
    """The recipe runs with a Python that only prints its arguments, and with a uv that does the same."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "uv"):
        program = tmp_path / "bin" / name
        program.write_text('#!/bin/sh\necho "run: $*"\n')
        program.chmod(0o755)
    (tmp_path / ".installed").touch()
    python = tmp_path / "bin" / "python"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    result = subprocess.run(
        ["make", f"VENV={tmp_path}", f"PY={python}", f"VERIFICATION={python}", "UV_FIND_LINKS=", target],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    programs = re.findall(r"^run: .*-m (verification[\w.]*)", result.stdout, re.MULTILINE)
    assert programs
    for program in programs:
        path = ROOT.joinpath("services", "python", *program.split("."))
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert 'if __name__ == "__main__":' in file.read_text(), program
