"""The blocking face of the store: what the leader of a group asks. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from daybreak_server.adapters.redis.client import Scripts, connect, translated
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua import claim as claiming
from daybreak_server.adapters.redis.lua import forget, renew, report, settle
from daybreak_server.adapters.redis.lua import group as groups
from daybreak_server.adapters.redis.lua.settle import Ending
from daybreak_server.adapters.redis.scripts import Call, Library
from daybreak_server.domain import policy
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupRecord
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
LOOK_AGAIN_S = 5.0
"""An idle leader looks at the queue at least so often, whatever the bell says."""
_REFUSED_PAUSE_S = 0.5


class RedisQueue:
    """A :class:`~daybreak_server.ports.store.WorkQueue` for one pool."""

    def __init__(
        self,
        where: str | Endpoint,
        *,
        pool: str,
        prefix: str = "daybreak",
        lease_s: float = policy.LEASE_S,
        timeout_s: float = 5.0,
        spec_version: int = SPEC_VERSION,
        library: Library | None = None,
    ) -> None:
        self._keys = Keys(prefix=prefix, pool=pool)
        self._lease_s = lease_s
        self._spec_version = spec_version
        self._client = connect(where, timeout_s=timeout_s)
        self._scripts = Scripts(self._client, library or Library())
        self._wakeup = connect(where, timeout_s=LOOK_AGAIN_S + timeout_s)
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; a waiting claim ends soon."""
        self._closed.set()
        self._client.close()
        self._wakeup.close()

    def claim(self, group: GroupRecord, *, wait_s: float) -> Claim | None:
        """The next task in fair order, or ``None`` after ``wait_s`` without one, or while the group drains.

        What the group still held goes back first, so call it only when it works at nothing. While the group
        drains it answers after at most half a second, so that a loop around it stays calm.
        """
        end = time.monotonic() + wait_s
        while True:
            reply = self._scripts.call(self._look([group]))[0]
            found = claiming.decode(reply, group.id, lease_s=self._lease_s)
            if found is not None:
                return found
            outcome, left = claiming.outcome(reply), end - time.monotonic()
            if outcome == "drain":
                self._closed.wait(max(0.0, min(left, _REFUSED_PAUSE_S)))
                return None
            if outcome == "again":
                continue
            if left <= 0 or self._closed.is_set():
                return None
            if outcome == "other":  # the bell rings for others: taking its tokens would keep it from them
                self._closed.wait(min(left, _REFUSED_PAUSE_S))
            else:
                self._wait_for_wakeup(min(left, LOOK_AGAIN_S))

    def renew(self, lease: Lease) -> Control:
        """Extend the lease. ``STALE`` when it is not ours any more."""
        return renew.decode(self._scripts.call(renew.encode(self._keys, lease), again=True))

    def report(
        self,
        lease: Lease,
        events: Sequence[EventDraft],
        *,
        checkpoint: CheckpointRef | None = None,
        fields: Mapping[str, str | int | float] | None = None,
    ) -> Control:
        """Append events, update the record, set the checkpoint. Never repeated: events would be twice."""
        call = report.encode(self._keys, lease, events, checkpoint=checkpoint, fields=fields or {})
        return report.decode(self._scripts.call(call))

    def preview(self, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Control:
        """Overwrite the task's preview. :raises ValueError: when it is larger than 32 KiB."""
        if len(image) > PREVIEW_MAX:
            raise ValueError(f"a preview may have {PREVIEW_MAX} bytes, this one has {len(image)}")
        call = forget.encode_preview(self._keys, lease, image, content_type=content_type, ttl_s=ttl_s)
        return forget.decode_preview(self._scripts.call(call, again=True))

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """End the attempt. The same outcome again is answered as the first time: repeat it freely."""
        return self.settle_each([(lease, outcome, claim_next)])[0]

    def claim_each(self, groups: Sequence[GroupRecord]) -> list[Claim | None]:
        """One look at the queue for each of some groups of this process, in one call; does not wait.

        ``None`` also for one that drains, or for which nothing of what waits is. At most 32 groups.
        """
        items = self._scripts.call(self._look(groups))
        return [
            claiming.decode(item, group.id, lease_s=self._lease_s)
            for item, group in zip(items, groups, strict=True)
        ]

    def settle_each(self, endings: Sequence[Ending]) -> list[Settled]:
        """:meth:`settle` for several groups of this process, in one call; at most 32, of different groups."""
        call = settle.encode(self._keys, endings, lease_s=self._lease_s)
        return settle.decode(self._scripts.call(call, again=True), endings, lease_s=self._lease_s)

    def group(self, record: GroupRecord, *, ttl_s: float) -> GroupRecord:
        """Register or refresh a group for ``ttl_s`` on the lease clock; the answer carries ``drain``."""
        drain = groups.decode(self._scripts.call(groups.encode(self._keys, record, ttl_s=ttl_s), again=True))
        return replace(record, drain=bool(drain))

    def leave(self, record: GroupRecord) -> None:
        """The group is gone; whatever it held is handed back."""
        self._scripts.call(groups.encode_leave(self._keys, record.id), again=True)

    def failed(self, cause: Cause, *, rank: int = 0) -> None:
        """A rank ends because of this: the pool shows it until a group is ready."""
        self._scripts.call(groups.encode_failure(self._keys, cause, rank=rank))

    def _look(self, groups: Sequence[GroupRecord]) -> Call:
        return claiming.encode(self._keys, groups, lease_s=self._lease_s, spec_version=self._spec_version)

    def _wait_for_wakeup(self, seconds: float) -> None:
        with translated():
            self._wakeup.blpop([self._keys.one("wakeup")], timeout=max(seconds, 0.01))
