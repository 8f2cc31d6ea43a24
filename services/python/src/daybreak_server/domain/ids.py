"""Identifiers of tasks (``video_01J…``: the pool's name and a ULID) and groups, and the tokens of attempts."""

from __future__ import annotations

import os
import re
import time
from typing import NewType

from daybreak_server.domain.names import POOL_NAME

TaskId = NewType("TaskId", str)
GroupId = NewType("GroupId", str)
AttemptToken = NewType("AttemptToken", str)
"""``<attempt number>.<nonce>``. The store checks the token at every write of a leader. The number rises with each
attempt."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_TASK_ID = re.compile(rf"^({POOL_NAME.strip('^$')})_([0-7][0-9A-HJKMNP-TV-Z]{{25}})$")


def ulid(*, at_ms: int | None = None) -> str:
    """A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32. ULIDs sort by time."""
    millis = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    number = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def new_task_id(pool: str, *, at_ms: int | None = None) -> TaskId:
    """A new id for a task in ``pool``."""
    return TaskId(f"{pool}_{ulid(at_ms=at_ms)}")


def new_group_id() -> GroupId:
    """A new id for a group."""
    return GroupId(f"g-{ulid().lower()}")


def pool_of(task: str) -> str | None:
    """The pool that a task id names; ``None`` if ``task`` is not a task id."""
    match = _TASK_ID.match(task)
    return match.group(1) if match else None


def made_at_ms(task: TaskId) -> int:
    """When the task was submitted, in ms, according to its id. :raises ValueError: if ``task`` is not a task id."""
    match = _TASK_ID.match(task)
    if match is None:
        raise ValueError(f"{task!r} is not a task id")
    millis = 0
    for letter in match.group(2)[:10]:
        millis = millis * 32 + _CROCKFORD.index(letter)
    return millis


def attempt_of(token: AttemptToken) -> int:
    """The number of the attempt that holds ``token``."""
    return int(token.partition(".")[0])
