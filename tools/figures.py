"""Writes the tables of measured figures into the pages of docs; ``--check`` only says which pages are stale.

A page has a block ``<!-- figures: NAME -->`` … ``<!-- end -->``, which gets the table of ``docs/figures/NAME.json``.
If the block has ``NAME?``, the file is optional: until a benchmark has saved it, the page says "Not run yet."
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "services" / "python"))

from verification.results import FOLDER, load  # noqa: E402

BLOCK = re.compile(r"<!-- figures: (?P<name>[\w-]+)(?P<optional>\??) -->.*?<!-- end -->", re.DOTALL)


def table(block: re.Match[str]) -> str:
    """The block with the table of its file."""
    name, optional = block["name"], block["optional"]
    path = FOLDER / f"{name}.json"
    if path.exists():
        inner = load(path).table()
    elif optional:
        inner = "Not run yet."
    else:
        raise SystemExit(f"{path} is missing, and a page shows its table: run the benchmark that writes it")
    return f"<!-- figures: {name}{optional} -->\n\n{inner}\n\n<!-- end -->"


def main(arguments: list[str]) -> int:
    """Write the stale pages, or only name them. :returns: the exit code: 1 if ``--check`` found a stale page."""
    stale = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        old = page.read_text()
        new = BLOCK.sub(table, old)
        if new != old:
            stale.append(page.name)
            if "--check" not in arguments:
                page.write_text(new)
                print(f"wrote {page}")
    if "--check" in arguments:
        print(f"stale: {', '.join(stale)}; run python tools/figures.py" if stale else "figures: up to date")
        return 1 if stale else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
