"""``show.lua``, ``list.lua`` and ``cancel.lua``: tasks as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.ports.tasks import Page


def encode(keys: Keys, tasks: Sequence[TaskId]) -> Call:
    """These tasks, in this order."""
    return Call("show", keys, tasks)


def decode(reply: Any) -> list[TaskRecord | None]:
    """``None`` for each that is not there."""
    return [codec.task(shown) if shown else None for shown in reply]


def encode_cancel(keys: Keys, task: TaskId, reason: str) -> Call:
    """Cancel ``task``; the reason is kept to 64 bytes, so that the record stays small."""
    return Call("cancel", keys, (task, reason.encode()[:64].decode(errors="ignore")))


def decode_cancel(reply: Any) -> TaskRecord | None:
    """The task afterwards, or ``None`` where there is none."""
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
    """A page of ``tenant``'s tasks."""
    wanted = sorted(states) if states is not None else []
    return Call("list", keys, (tenant, after or "", limit, int(newest_first), *wanted))


def decode_list(reply: Any) -> Page:
    """The page and where the next one begins."""
    following = codec.text(reply[0])
    return Page(
        records=tuple(codec.task(shown) for shown in reply[1]),
        next=TaskId(following) if following else None,
    )
