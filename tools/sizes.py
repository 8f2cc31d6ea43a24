"""Keeps rooms small: files ≤ 400 lines, functions ≤ 60, save those listed here with their reason.

An exception is a ratchet: it names the size it may have today, and is an error once it is no longer needed.
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
"""`path` or `path::function` → (lines it may have, why)."""


def measured(path: Path) -> Iterator[tuple[str, int, int]]:
    text = path.read_text()
    yield str(path), len(text.splitlines()), FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield f"{path}::{node.name}", node.end_lineno - node.lineno + 1, FUNCTION_LINES


def main() -> int:
    bad: list[str] = []
    unused = set(EXCEPTIONS)
    for root in ROOTS:
        for path in sorted(Path(root).rglob("*.py")):
            for what, lines, limit in measured(path):
                allowed, _ = EXCEPTIONS.get(what, (limit, ""))
                if lines > limit:
                    unused.discard(what)
                if lines > allowed:
                    bad.append(f"{what}: {lines} lines, more than {allowed}. Split it along its concepts.")
    bad += [f"{what} is an exception that is not needed any more" for what in sorted(unused)]
    print("\n".join(bad) or "sizes: every file and function is within its bound")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
