"""Checks that each public class has a unique name in its distribution. ``TWINS`` has the exceptions and their reasons.

The SDK and the server may use the same name, such as ``Task``: the SDK's class is the client's view of the server's.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

DISTRIBUTIONS = (Path("services/python/src/daybreak_server"), Path("controlplane-sdk/src/daybreak"))
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
    """Print the problems. :returns: the exit code: 1 if there are any."""
    bad = [
        problem
        for folder in DISTRIBUTIONS
        for problem in problems(public_classes(folder.rglob("*.py")), TWINS)
    ]
    print("\n".join(bad) or "class names: every public class has a name of its own in its distribution")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
