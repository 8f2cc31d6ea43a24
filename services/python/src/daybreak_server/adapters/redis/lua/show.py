"""``show.lua``, ``list.lua`` and ``cancel.lua``: scripts that answer with task records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import Cancellation, ListPage
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.domain.text import cut
from daybreak_server.ports.tasks import Page


def encode(keys: Keys, tasks: Sequence[TaskId]) -> Call:
    """Read these tasks, in this order."""
    return Call("show", keys, tasks)


def decode(reply: Any) -> list[TaskRecord | None]:
    """The tasks; ``None`` for each that does not exist."""
    return [codec.task(shown) if shown else None for shown in reply]


def encode_cancel(keys: Keys, task: TaskId, reason: str) -> Call:
    """Cancel ``task``. The reason is cut to 64 bytes, so that the record stays small."""
    return Call("cancel", keys, Cancellation(task=task, reason=cut(reason, 64)))


def decode_cancel(reply: Any) -> TaskRecord | None:
    """The task after the call; ``None`` if it does not exist."""
    return codec.task(reply) if reply else None


def encode_list(
    keys: Keys,
    tenant: str,
    *,
    states: frozenset[State] | None,
    after: TaskId | None,
    limit: int,
    newest_first: bool,
) -> Call:
    """Read a page of ``tenant``'s tasks."""
    wanted = sorted(states) if states is not None else []
    page = ListPage(tenant=tenant, after=after or "", limit=limit, newest_first=int(newest_first))
    return Call("list", keys, (*page, *wanted))


def decode_list(reply: Any) -> Page:
    """The page, and the cursor of the next one."""
    cursor = codec.text(reply[0])
    return Page(
        records=tuple(codec.task(shown) for shown in reply[1]),
        next=TaskId(cursor) if cursor else None,
    )
