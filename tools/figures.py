"""Puts the tables of measured figures into the pages of docs; ``--check`` says whether they are as measured.

A page holds ``<!-- figures: NAME -->`` … ``<!-- end -->``; between the two stands the table of
``docs/figures/NAME.json``. ``NAME?`` is optional: while no run has saved it, the page says "not run".
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "services" / "python"))

from verification.results import FOLDER, load

BLOCK = re.compile(r"<!-- figures: (?P<name>[\w-]+)(?P<optional>\??) -->.*?<!-- end -->", re.DOTALL)


def table(block: re.Match[str]) -> str:
    """The block with its table as the file has it now."""
    name, optional = block["name"], block["optional"]
    path = FOLDER / f"{name}.json"
    if path.exists():
        inner = load(path).table()
    elif optional:
        inner = "Not run yet."
    else:
        raise SystemExit(f"{path} is not there, but a page shows it: run what measures it")
    return f"<!-- figures: {name}{optional} -->\n\n{inner}\n\n<!-- end -->"


def main(arguments: list[str]) -> int:
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
        print(f"stale: {', '.join(stale)}; run python tools/figures.py" if stale else "figures: as measured")
        return 1 if stale else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
