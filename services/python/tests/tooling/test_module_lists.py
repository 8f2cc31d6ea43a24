"""Tests that ``tools/module_lists.py`` finds a listed module that does not exist, and a module that is not listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[4] / "tools"


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Three parts.", ""),
        ("* ``leader``, ``follower``  the loops\n* ``deep`` is below them", ""),
        ("* `leader` and `follower` are loops, and `deep` is below them", ""),
        (
            "* ``leader``, ``follower``, ``engine``  the loops\n* ``deep``",
            "lists engine, which does not exist",
        ),
        ("* ``leader``  the loop\n* ``deep``", "does not list follower"),
        ("* ``leader``, ``follower``  the loops", "does not list deep"),
    ],
)
def test_a_list_of_modules_names_all_of_them_and_no_others(
    tmp_path: Path, docstring: str, expected: str
) -> None:
    for name in ("__init__.py", "leader.py", "follower.py", "deep/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    script = (
        "from pathlib import Path; from module_lists import modules, problems; "
        f"print(*problems({docstring!r}, modules(Path({str(tmp_path)!r}))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=TOOLS, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.strip() == expected
