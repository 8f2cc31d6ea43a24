"""Writes the parts of the documentation that are generated from code.

These are the pages settings.md and errors.md, and tables within other pages: between ``<!-- reference: NAME -->`` and
``<!-- end -->``, a page of ``docs`` has the table ``NAME`` of ``reference_tables.py``. ``--check`` writes nothing,
shows a diff, and exits with 1 if something is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import generated_files
import reference_tables as tables

from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX
from daybreak_server.cli.settings import as_markdown

DOCS = generated_files.ROOT / "docs"
BLOCK = re.compile(r"<!-- reference: (?P<name>[\w-]+) -->.*?<!-- end -->", re.DOTALL)


def errors() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "<!-- Made by tools/reference.py from daybreak.wire.errors; do not edit. -->",
        "",
        f"Every error has a body of type `{MEDIA_TYPE}` (RFC 9457). Programs should look at `code`, which is",
        f"stable (`type` is `{TYPE_PREFIX}` and the code). `detail` says what is wrong in this case and",
        "what to do; `errors[].field` names the invalid fields of an input. 429 and 503 carry `Retry-After`:",
        "the same request may succeed later. No request should cause a 500: it is a bug of the server, and",
        "its `request_id` finds the traceback in the log.",
        "",
        tables.errors(),
    ]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings.md": as_markdown, "errors.md": errors}


def with_tables(text: str) -> str:
    """A page with its tables regenerated. :raises SystemExit: if it names a table that does not exist."""
    return BLOCK.sub(_block, text)


def _block(match: re.Match[str]) -> str:
    name = match["name"]
    if name not in tables.BLOCKS:
        raise SystemExit(
            f"a page names the table {name!r}, which does not exist. Use one of: {', '.join(tables.BLOCKS)}"
        )
    return f"<!-- reference: {name} -->\n\n{tables.BLOCKS[name]()}\n\n<!-- end -->"


def generated() -> dict[Path, str]:
    """Every page with generated parts, as it should be."""
    pages = {DOCS / name: generate() for name, generate in PAGES.items()}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name not in PAGES and BLOCK.search(text):
            pages[path] = with_tables(text)
    return pages


def main(arguments: list[str]) -> int:
    """Write or check. :returns: the exit status."""
    pages = generated()
    status = generated_files.write_or_check(pages, check="--check" in arguments, tool="tools/reference.py")
    if "--check" in arguments and not status:
        print(f"reference: {', '.join(path.name for path in pages)} are up to date")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
