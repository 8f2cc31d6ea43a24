"""Checks that files have at most 400 lines and functions at most 60, except those listed here with a reason.

An exception states how many lines its file or function may have. An unnecessary exception is an error.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60
ROOTS = ("services/python", "controlplane-sdk", "tools", "e2e")
EXCEPTIONS: dict[str, tuple[int, str]] = {}
"""`path` or `path::function` → (allowed lines, reason)."""


def measured(path: Path) -> Iterator[tuple[str, int, int]]:
    """The file and each of its functions: what it is, its number of lines, and the limit without an exception."""
    text = path.read_text()
    yield str(path), len(text.splitlines()), FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield f"{path}::{node.name}", node.end_lineno - node.lineno + 1, FUNCTION_LINES


def main() -> int:
    """Print what exceeds its limit, and the unnecessary exceptions. :returns: the exit code: 1 if there are any."""
    bad: list[str] = []
    unused = set(EXCEPTIONS)
    for root in ROOTS:
        for path in sorted(Path(root).rglob("*.py")):
            for what, lines, limit in measured(path):
                allowed, _ = EXCEPTIONS.get(what, (limit, ""))
                if lines > limit:
                    unused.discard(what)
                if lines > allowed:
                    bad.append(f"{what}: {lines} lines, more than {allowed}: split it by concept")
    bad += [
        f"{what} is an exception that is no longer needed: remove it from tools/sizes.py"
        for what in sorted(unused)
    ]
    print("\n".join(bad) or "sizes: every file and function is within its limit")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
