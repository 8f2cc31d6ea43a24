"""Writes the pages that are made from code, docs/settings.md and docs/errors.md; ``--check`` shows a diff."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX, ErrorCode
from daybreak_server.entrypoints.cli_settings import as_markdown

DOCS = Path(__file__).parent.parent / "docs"


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
        "| status | code | title | again later? |",
        "|---|---|---|---|",
    ]
    for code in sorted(ErrorCode, key=lambda one: one.status):
        again = "yes, after `Retry-After`" if code.status in {429, 503} else "no"
        lines.append(f"| {code.status} | `{code.value}` | {code.title} | {again} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings.md": as_markdown, "errors.md": errors}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    stale = False
    for name, make in PAGES.items():
        path, new = DOCS / name, make()
        old = path.read_text() if path.exists() else ""
        if new == old:
            continue
        stale = True
        if check:
            diff = difflib.unified_diff(
                old.splitlines(), new.splitlines(), str(path), "made from code", lineterm=""
            )
            print("\n".join(diff))
        else:
            path.write_text(new)
            print(f"wrote {path}")
    if check:
        print(
            "stale: run python tools/reference.py"
            if stale
            else "reference: docs/settings.md and errors.md are fresh"
        )
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
