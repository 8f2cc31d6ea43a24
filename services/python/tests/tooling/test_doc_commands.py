"""Tests of ``e2e/doc_commands.py``, which takes commands from the documentation and runs them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "e2e"))

from doc_commands import step


def test_a_block_may_have_more_than_nine_steps() -> None:
    """Step 10 is a step of its own, not a part of step 9."""
    block = "".join(f"# {number}  what it does\ncommand-{number}\n" for number in range(1, 12))
    assert step(block, 9) == "# 9  what it does\ncommand-9\n"
    assert step(block, 11, 10) == "# 11  what it does\ncommand-11\n# 10  what it does\ncommand-10\n"
