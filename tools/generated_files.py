"""Writes generated files, or shows which lines in them are out of date."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(files: Mapping[Path, str], *, check: bool, tool: str) -> int:
    """Write the files that differ. With ``check``, only show how they differ.

    :returns: 1 if ``check`` is set and a file differs, otherwise 0.
    """
    stale = False
    for path, generated in files.items():
        current = path.read_text(encoding="utf-8") if path.exists() else ""
        if current == generated:
            continue
        stale = True
        name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        if check:
            before, after = current.splitlines(keepends=True), generated.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(before, after, name, "as generated", n=1))
        else:
            path.write_text(generated, encoding="utf-8")
            print(f"wrote {name}")
    if stale and check:
        print(
            f"stale: run `python {tool}` and commit the generated files together with the change of their source."
        )
    return int(stale and check)
