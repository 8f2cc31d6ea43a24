"""Pages of task lists, for one pool or for several pools merged by ULID, and their cursors."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.ports.tasks import Page, TaskStore

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_VERSION = "1"


def encode(ulid: str) -> str:
    """The cursor for a ULID. It is opaque to clients, so that its content may change."""
    return base64.urlsafe_b64encode(f"{_VERSION}{ulid}".encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """The ULID in a cursor. :raises ApiError: ``bad_cursor``."""
    refusal = ApiError(
        ErrorCode.BAD_CURSOR,
        "The cursor in `after` is not valid. Send the `next` of an earlier page unchanged.",
    )
    if len(cursor) > 64:
        raise refusal
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as exc:
        raise refusal from exc
    if text[:1] != _VERSION or not _ULID.fullmatch(text[1:]):
        raise refusal
    return text[1:]


def ulid_of(task: str) -> str:
    """The part of a task's id that sorts by time."""
    return task.rpartition("_")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The filters, position and order of a list."""

    tenant: str
    states: frozenset[State] | None
    after: str | None
    """The ULID after which the page begins."""
    limit: int
    newest_first: bool


async def read(store: TaskStore, pools: Sequence[str], query: Query) -> tuple[list[TaskRecord], str | None]:
    """A page over these pools, and the ULID after which the next page begins. :raises StoreUnavailableError:"""
    pages = await asyncio.gather(*(_page(store, pool, query) for pool in pools))
    return merge(pages, limit=query.limit, newest_first=query.newest_first)


async def _page(store: TaskStore, pool: str, query: Query) -> Page:
    return await store.list(
        pool,
        query.tenant,
        states=query.states,
        after=None if query.after is None else TaskId(f"{pool}_{query.after}"),
        limit=query.limit,
        newest_first=query.newest_first,
    )


def merge(pages: Sequence[Page], *, limit: int, newest_first: bool) -> tuple[list[TaskRecord], str | None]:
    """Merge one page of each pool, and find where the next page begins.

    A page with a ``next`` covers its pool only up to the task ``next``. The merged page ends at the first of these
    tasks or earlier. Records of other pools beyond that task are left for the next page.
    """
    ends = [ulid_of(page.next) for page in pages if page.next is not None]
    frontier = (max(ends) if newest_first else min(ends)) if ends else None
    records = sorted(
        (r for page in pages for r in page.records), key=lambda r: ulid_of(r.id), reverse=newest_first
    )
    if frontier is not None:
        records = [r for r in records if not _is_after(ulid_of(r.id), frontier, newest_first=newest_first)]
    if len(records) > limit:
        return records[:limit], ulid_of(records[limit - 1].id)
    return records, frontier


def _is_after(ulid: str, frontier: str, *, newest_first: bool) -> bool:
    return ulid < frontier if newest_first else ulid > frontier
