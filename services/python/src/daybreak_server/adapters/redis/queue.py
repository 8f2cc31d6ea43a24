"""The work queue on Redis, with blocking calls for the leaders of groups. Thread-safe.

Each call is one script, which checks the lease's token before it changes the task (fencing). A claim that finds no task
blocks on the pool's wake-up list, on a connection of its own, and claims again when a script pushes an entry or some
seconds have passed. Calls that have the same effect when repeated are retried by the client; the others are not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from daybreak_server.adapters.redis import batching_settings, changes
from daybreak_server.adapters.redis.client import OnCall, Scripts, connect, translated
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua import claim as claiming
from daybreak_server.adapters.redis.lua import group as groups
from daybreak_server.adapters.redis.lua import preview, renew, report, settle
from daybreak_server.adapters.redis.lua.settle import AttemptEnd
from daybreak_server.adapters.redis.scripts import Call, Library
from daybreak_server.domain import policy
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.changes import OnChange
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tasks import (
    SPEC_VERSION,
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    Lease,
    Outcome,
    Settled,
)

PREVIEW_MAX = 32 * 1024
_WAKEUP_S = 5.0
"""The longest wait for a wake-up in one call to Redis. A claim that waits longer makes several such calls, so that
the timeout of the connection can stay short."""
_REFUSED_PAUSE_S = 0.5
"""How long a leader pauses when its group drains, or when no waiting task is for its group."""


class RedisQueue:
    """The :class:`~daybreak_server.ports.queue.WorkQueue` of one pool.

    ``on_woken`` gets the seconds from each wake-up to the claim after it. For each call, ``on_call`` gets the name of
    the script, how many seconds the call took, and whether it succeeded.
    """

    def __init__(
        self,
        where: str | Endpoint,
        *,
        pool: str,
        prefix: str = "daybreak",
        lease_s: float = policy.LEASE_S,
        timeout_s: float = 5.0,
        spec_version: int = SPEC_VERSION,
        on_woken: Callable[[float], None] | None = None,
        on_call: OnCall | None = None,
        library: Library | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        self._keys = Keys(prefix=prefix, pool=pool)
        self._lease_s = lease_s
        self._spec_version = spec_version
        self._client = connect(where, timeout_s=timeout_s)
        self._scripts = Scripts(self._client, library or Library(), on_call=on_call, on_change=on_change)
        self._wakeup = connect(where, timeout_s=_WAKEUP_S + timeout_s)
        self._on_woken = on_woken
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections. A waiting claim ends soon."""
        self._closed.set()
        self._client.close()
        self._wakeup.close()

    def claim(self, group: GroupRecord, *, wait_s: float) -> Claim | None:
        """Claim the next task in fair order. Returns ``None`` after ``wait_s``, or if the group drains.

        First, the store releases each task that it lists for the group although the group does not know the task. While
        the group drains, the call takes half a second (at most ``wait_s``), so that a loop around it does not spin.
        """
        deadline = time.monotonic() + wait_s
        woken_at: float | None = None
        while True:
            reply = self._scripts.call(self._claim([group]))[0]
            claim = claiming.decode(reply, group.id, lease_s=self._lease_s)
            if claim is not None:
                if woken_at is not None and self._on_woken is not None:
                    self._on_woken(time.monotonic() - woken_at)
                return claim
            outcome, remaining_s = claiming.outcome(reply), deadline - time.monotonic()
            if outcome == "drain":
                self._closed.wait(max(0.0, min(remaining_s, _REFUSED_PAUSE_S)))
                return None
            if outcome == "again":
                continue
            if remaining_s <= 0 or self._closed.is_set():
                return None
            if outcome == "other":  # leave the wake-ups to groups that can run the waiting tasks
                self._closed.wait(min(remaining_s, _REFUSED_PAUSE_S))
            else:
                woken_at = time.monotonic() if self._wait_for_wakeup(min(remaining_s, _WAKEUP_S)) else None

    def renew(self, lease: Lease) -> Control:
        """Extend the lease. Returns ``STALE`` if this attempt no longer holds the task."""
        return renew.decode(self._scripts.call(renew.encode(self._keys, lease), idempotent=True))

    def report(
        self,
        lease: Lease,
        events: Sequence[EventDraft],
        *,
        checkpoint: CheckpointRef | None = None,
        fields: Mapping[str, str | int | float] | None = None,
    ) -> Control:
        """Append events, update the record and set the checkpoint.

        The call is not retried, because a retry could write an event without a number twice.
        """
        call = report.encode(self._keys, lease, events, checkpoint=checkpoint, fields=fields or {})
        return report.decode(self._scripts.call(call))

    def preview(self, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Control:
        """Replace the task's preview. :raises ValueError: if ``image`` is larger than 32 KiB."""
        if len(image) > PREVIEW_MAX:
            raise ValueError(f"the preview has {len(image)} bytes; at most {PREVIEW_MAX} are allowed")
        call = preview.encode(self._keys, lease, image, content_type=content_type, ttl_s=ttl_s)
        return preview.decode(self._scripts.call(call, idempotent=True))

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """End the attempt, and claim a task for ``claim_next``. A repeated call has the same result as the first."""
        return self.settle_each([(lease, outcome, claim_next)])[0]

    def claim_each(self, groups: Sequence[GroupRecord]) -> list[Claim | None]:
        """Claim a task for each of several groups of this process, in one call and without waiting. At most 32 groups.

        The result has ``None`` for a group that drains, or for which no task waits.
        """
        items = self._scripts.call(self._claim(groups))
        return [
            claiming.decode(item, group.id, lease_s=self._lease_s)
            for item, group in zip(items, groups, strict=True)
        ]

    def settle_each(self, ends: Sequence[AttemptEnd]) -> list[Settled]:
        """:meth:`settle` for at most 32 attempts of different groups of this process, in one call."""
        call = settle.encode(self._keys, ends, lease_s=self._lease_s)
        return settle.decode(self._scripts.call(call, idempotent=True), ends, lease_s=self._lease_s)

    def register(self, record: GroupRecord, *, ttl_s: float) -> GroupRecord:
        """Register or refresh a group for ``ttl_s`` on the lease clock. The result has the group's drain mark."""
        drain = groups.decode(
            self._scripts.call(groups.encode(self._keys, record, ttl_s=ttl_s), idempotent=True)
        )
        return replace(record, drain=bool(drain))

    def batching(self) -> Mapping[str, Any]:
        """An administrator's changes to the pool's settings ``batching`` and ``sessions``."""
        with translated():
            stored = self._client.hmget(self._keys.single("meta"), batching_settings.FIELDS)
        return batching_settings.decode(dict(zip(batching_settings.FIELDS, stored, strict=True)))

    def deregister(self, record: GroupRecord) -> None:
        """Remove a group. Tasks that it still holds are released."""
        self._scripts.call(groups.encode_deregister(self._keys, record.id), idempotent=True)

    def deregister_dead(self, record: GroupRecord, *, worked_on: Sequence[SessionId] | None = None) -> None:
        """Remove a group that has died, and count it as lost. ``worked_on``: the sessions that it worked on last."""
        call = groups.encode_deregister_dead(self._keys, record.id, worked_on=worked_on)
        self._scripts.call(call, idempotent=True)

    def report_failure(self, cause: Cause, *, rank: int = 0) -> None:
        """Report why a rank ended. The pool shows the reason until a group is ready, for ten minutes at most."""
        self._scripts.call(groups.encode_failure(self._keys, cause, rank=rank))

    def _claim(self, groups: Sequence[GroupRecord]) -> Call:
        return claiming.encode(self._keys, groups, lease_s=self._lease_s, spec_version=self._spec_version)

    def _wait_for_wakeup(self, seconds: float) -> bool:
        with translated():
            token = self._wakeup.blpop([self._keys.single("wakeup")], timeout=max(seconds, 0.01))
        return token is not None
