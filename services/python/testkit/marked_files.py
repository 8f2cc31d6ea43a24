"""A pytest plugin that does not import a test file if `-m` deselects all of its tests.

pytest deselects tests only after it has imported their files. Some files import Ray or torch, and each worker of a
parallel run imports all files. So `make test` would import what only `make test-systems` needs, and vice versa.

The plugin searches the text of each file for the marks ``gpu``, ``system`` and ``heavy``. So these marks must be
written in the file (``pytest.mark.system``). A conftest must not add them.
"""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

MARKS = frozenset({"gpu", "system", "heavy"})
_USED = re.compile(rf"\bmark\.({'|'.join(sorted(MARKS))})\b")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore a file without a test that `-m` may select, unless the command line names the file."""
    expression = config.getoption("markexpr")
    if not expression or not collection_path.match("test_*.py"):
        return None
    named = {config.invocation_params.dir / argument.partition("::")[0] for argument in config.args}
    if collection_path in named or may_select(expression, collection_path.read_text()):
        return None
    return True


def may_select(expression: str, text: str) -> bool:
    """Whether ``-m EXPRESSION`` may select a test of a file with this text."""
    if not set(re.findall(r"\w+", expression)) - {"and", "or", "not"} <= MARKS:
        return True
    used = set(_USED.findall(text))
    of_all = _marks_of_all_tests(text) if used and "pytestmark" in text else set()
    of_some = sorted(used - of_all)
    return any(
        _selects(expression, {*of_all, *chosen})
        for count in range(len(of_some) + 1)
        for chosen in itertools.combinations(of_some, count)
    )


def _selects(expression: str, marks: set[str]) -> bool:
    """Whether the expression selects a test with exactly these marks.

    The expression has only names of marks, ``and``, ``or``, ``not`` and parentheses, so Python can evaluate it.
    """
    return bool(eval(expression, {"__builtins__": {}}, {mark: mark in marks for mark in MARKS}))


def _marks_of_all_tests(text: str) -> set[str]:
    """The marks in the module's ``pytestmark``."""
    return {
        mark
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark"
        for mark in _USED.findall(ast.unparse(statement.value))
    }
