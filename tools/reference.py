"""Writes the parts of the documentation that are generated from code.

The pages settings.md and errors.md are generated as a whole. Other pages of ``docs`` have generated tables: the table
``NAME`` of ``reference_tables.py`` is between ``<!-- reference: NAME -->`` and ``<!-- end -->``. ``--check`` writes
nothing, shows a diff, and exits with 1 if something is stale.
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


PROBLEM_FIELDS = (
    ("`code`", "the error's code, from the table below; it is stable"),
    ("`type`", f"`{TYPE_PREFIX}` followed by the code"),
    ("`title`", "the title of the code, from the table below"),
    ("`status`", "the HTTP status"),
    ("`detail`", "what is wrong with this request, and what to do"),
    (
        "`errors`",
        "the invalid fields of a body or a query: a `field` such as `input.frames`, and a `message`",
    ),
    (
        "`limit`",
        "the limit that is reached, for example `body_bytes` (`too_large`) or `waiting` (`queue_full`)",
    ),
    ("`retry_after_s`", "after how many seconds the request may be repeated, as in `Retry-After`"),
    ("`request_id`", "the id of the request, which is also in the server's log"),
    (
        "`wake`",
        "the phase of the pool's wake, perhaps with an estimate, while the pool is waking (`not_ready`)",
    ),
)
"""The fields of :class:`daybreak.wire.errors.Problem`, and what they mean."""


def errors() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "<!-- Made by tools/reference.py from daybreak.wire.errors; do not edit. -->",
        "",
        f"The body of an error response has the type `{MEDIA_TYPE}` (RFC 9457) and the fields of this table.",
        "`errors` and the fields below it are present only where they apply. The paths of OpenAI's API use the format",
        "of OpenAI instead, and groups may answer with fewer fields, as described below.",
        "",
        tables.markdown(("field", "meaning"), PROBLEM_FIELDS),
        "",
        "Programs should use `code` to distinguish errors. This table lists all codes by status:",
        "",
        tables.errors(),
        "",
        "- *Yes* in the last column means that the cause may pass: the same request may succeed later. These responses",
        "  (429 and 503) have a `Retry-After` header.",
        "- *No* for 502 and 504 means that a group or a worker may have begun the work of the request, so a repeated",
        "  request could do it twice. [Daybreak's client](06-client.md) retries after these statuses all the same,",
        "  because a proxy in front of the gateway answers with them too, and every request of the client is safe to",
        "  send twice.",
        "- The code `internal` from the server means that the server has a bug. To find the traceback, search the",
        "  server's log for the `request_id` of the response.",
        "- [Requests to groups](wire.md#requests-to-groups-v1poolsnameservepath) can also get errors from the group",
        "  itself, for example 500 after an error of its workload. Such an error has only `status`, `code`, `detail`",
        "  and perhaps `errors`, unless the workload returns a body of its own. Many of these codes are not in the",
        "  table. The code `queue_full` is in the table with status 503, but a group that embeds or reranks sends it",
        "  with status 429 if too many texts wait.",
        "- The server has no API keys and no quotas yet. It sends `no_key` and `forbidden` only for routes that need",
        "  `workers.token` or `admin.token`, and never `bad_key` or `quota_exceeded`.",
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
