"""Files that are made from others: write them again, or say where they have drifted from their sources."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def settle(files: Mapping[Path, str], *, check: bool, tool: str) -> int:
    """Write what differs, or (``check``) show it and change nothing; the exit status: 1 where a check found a drift."""
    stale = False
    for path, made in files.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == made:
            continue
        stale = True
        name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        if check:
            before, after = found.splitlines(keepends=True), made.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(before, after, name, "as its sources have it", n=1))
        else:
            path.write_text(made, encoding="utf-8")
            print(f"wrote {name}")
    if stale and check:
        print(f"stale: run `python {tool}` and commit what it writes with what changed it.")
    return int(stale and check)
