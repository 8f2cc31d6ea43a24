"""Checks the lists of modules in the docstrings of the server's packages.

A line of a list describes one module (``* `module`  what it is``) or several (``* `leader`, `follower`  the loops``).
If a docstring has a list, each module in the list must exist. The docstring must name every module of its package,
either in the list or elsewhere.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "services/python/src/daybreak_server"
_NAME = r"(?::mod:)?`+\.?(\w+)/?`+"
_HEAD = re.compile(rf"^\* +{_NAME}(?:(?:, | and ){_NAME})*", re.MULTILINE)


def modules(package: Path) -> set[str]:
    """The modules and packages in a package."""
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in package.glob("*/__init__.py")}


def problems(docstring: str, found: set[str]) -> list[str]:
    """What is wrong with the list in the docstring of a package that has the modules ``found``."""
    listed = {name for head in _HEAD.finditer(docstring) for name in re.findall(_NAME, head[0])}
    if not listed:
        return []
    named = set(re.findall(_NAME, docstring))
    return [
        *(f"lists {name}, which does not exist" for name in sorted(listed - found)),
        *(f"does not list {name}" for name in sorted(found - named)),
    ]


def main() -> int:
    """Print the problems of all packages."""
    bad = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in sorted(PACKAGES.rglob("__init__.py"))
        for problem in problems(ast.get_docstring(ast.parse(path.read_text())) or "", modules(path.parent))
    ]
    print("\n".join(bad) or "module lists: every package that lists its modules lists all of them")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
