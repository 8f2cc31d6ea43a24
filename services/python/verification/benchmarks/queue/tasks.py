"""The queued tasks, and the groups that claim them."""

from __future__ import annotations

import json
import time

from daybreak_server.domain.ids import GroupId, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import NewTask

POOL = "bench"
PROMPT = (
    "A lighthouse keeper climbs the spiral stairs at dawn, lamp in hand, while the sea below turns from slate "
    "to copper; gulls wheel past the window, and far out a small boat with a red sail heads for the harbour."
)[:200]


def plain(number: int) -> NewTask:
    """The smallest possible task."""
    return NewTask(id=new_task_id(POOL), pool=POOL, tenant="default", input_json=f'{{"n":{number}}}')


def realistic(number: int) -> NewTask:
    """A task as clients send it: a prompt of 200 characters, metadata and an idempotency key."""
    return NewTask(
        id=new_task_id(POOL),
        pool=POOL,
        tenant="default",
        input_json=json.dumps({"prompt": PROMPT, "seed": number}),
        metadata={"project": "harbour", "shot": str(number)},
        idempotency_key=f"shot-{number}-{time.time_ns()}",
        body_hash=f"{number:032x}",
    )


def group(number: int) -> GroupRecord:
    """A group of one rank."""
    return GroupRecord(id=GroupId(f"g-bench-{number}"), state=GroupState.IDLE)
