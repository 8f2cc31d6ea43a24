"""Checks that each public class of the server has a unique name. ``TWINS`` has the exceptions and their reasons."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

SERVER = Path("services/python/src/daybreak_server")
TWINS: dict[str, str] = {}
"""Name → why two classes may share it."""


def public_classes(paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    """The name of each public class → the modules that define a class of this name."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    return found


def problems(found: Mapping[str, list[Path]], twins: Iterable[str]) -> list[str]:
    """The problems, one sentence each."""
    shared = {name for name, paths in found.items() if len(paths) > 1}
    listed = set(twins)
    return [
        *(
            f"class {name} is defined in {' and '.join(map(str, found[name]))}: "
            "say in each name what the class is, or list the name in tools/class_names.py with a reason"
            for name in sorted(shared - listed)
        ),
        *(
            f"{name} is one class now: remove it from tools/class_names.py"
            for name in sorted(listed - shared)
        ),
    ]


def main() -> int:
    bad = problems(public_classes(SERVER.rglob("*.py")), TWINS)
    print("\n".join(bad) or "class names: every public class of the server has a name of its own")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
