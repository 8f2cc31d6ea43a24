"""Writes what documents take from code: the pages settings.md and errors.md, and tables in the midst of others.

A page of ``docs`` holds ``<!-- reference: NAME -->`` … ``<!-- end -->``; between the two stands the table ``NAME`` of
``reference_tables.py``. ``--check`` changes nothing, shows a diff, and exits 1 when something is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import drift
import reference_tables as tables

from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX
from daybreak_server.cli.settings import as_markdown

DOCS = drift.ROOT / "docs"
BLOCK = re.compile(r"<!-- reference: (?P<name>[\w-]+) -->.*?<!-- end -->", re.DOTALL)


def errors() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "<!-- Made by tools/reference.py from daybreak.wire.errors; do not edit. -->",
        "",
        f"Every error is a body of type `{MEDIA_TYPE}` (RFC 9457). `code` is stable, and what a program",
        f"looks at (`type` is `{TYPE_PREFIX}` and the code); `detail` says what is wrong this time and",
        "what to do; `errors[].field` names the fields of a wrong input. 429 and 503 carry `Retry-After`:",
        "the same request may succeed later. Nothing that a client sends is answered with 500: that is a bug",
        "of ours, and `request_id` finds it in the log.",
        "",
        tables.errors(),
    ]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings.md": as_markdown, "errors.md": errors}


def with_tables(text: str) -> str:
    """A page with its tables as the code has them now. :raises SystemExit: when it asks for one that is not there."""
    return BLOCK.sub(_block, text)


def _block(found: re.Match[str]) -> str:
    name = found["name"]
    if name not in tables.BLOCKS:
        raise SystemExit(f"a page asks for the table {name!r}; there are: {', '.join(tables.BLOCKS)}")
    return f"<!-- reference: {name} -->\n\n{tables.BLOCKS[name]()}\n\n<!-- end -->"


def made() -> dict[Path, str]:
    """Every page that holds something from code, as it should be."""
    pages = {DOCS / name: make() for name, make in PAGES.items()}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name not in PAGES and BLOCK.search(text):
            pages[path] = with_tables(text)
    return pages


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    pages = made()
    status = drift.settle(pages, check="--check" in arguments, tool="tools/reference.py")
    if "--check" in arguments and not status:
        print(f"reference: {', '.join(path.name for path in pages)} are fresh")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
