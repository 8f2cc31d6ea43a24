"""The task store on Redis: calls of the API and the operator, and housekeeping. For coroutines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

from daybreak_server.adapters.redis import batching_settings, changes
from daybreak_server.adapters.redis.client import AsyncScripts, OnCall, connect_async
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua import (
    delete,
    group,
    measure,
    preview,
    publish_demand,
    show,
    submit,
    tick,
)
from daybreak_server.adapters.redis.scripts import Library
from daybreak_server.adapters.redis.server_stats import stats_of
from daybreak_server.domain.changes import OnChange
from daybreak_server.domain.ids import GroupId, TaskId, pool_of
from daybreak_server.domain.policy import MAX_QUEUED, TENANTS_MAX
from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.pools import PoolReport, PoolView, TickReport
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.domain.tasks import NewTask, State, TaskRecord
from daybreak_server.ports.measurements import ServerStats
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.ports.tasks import Page, Submitted


def _batches(tasks: Sequence[NewTask]) -> Iterator[tuple[str, list[NewTask]]]:
    """Split tasks into batches, one for each call. A batch has consecutive tasks of one pool, at most ``TASKS_MAX``."""
    for pool, run in groupby(tasks, key=lambda task: task.pool):
        of_pool = list(run)
        for start in range(0, len(of_pool), submit.TASKS_MAX):
            yield pool, of_pool[start : start + submit.TASKS_MAX]


class RedisStore:
    """The ``TaskStore``, ``Housekeeper``, ``GroupStore``, ``DemandStore``, ``BatchingStore`` and ``Measurements``.

    Needs Redis ≥ 7 or Valkey. For coroutines of one event loop.

    ``max_queued``: pool → how many of its tasks may wait. Pools without an entry have the limit ``MAX_QUEUED``.
    ``target_loads``: pool → the requests or sessions that one of its groups should have, for each pool of kind
    ``online`` or ``sessions``.
    ``tenants_max``: how many tenants have totals of their own in metrics.
    ``on_call`` is called after each call of a script, with the script's name, the seconds that the call took, and
    whether it succeeded.
    """

    def __init__(
        self,
        where: str | Endpoint,
        *,
        prefix: str = "daybreak",
        timeout_s: float = 5.0,
        max_queued: Mapping[str, int] | None = None,
        target_loads: Mapping[str, float] | None = None,
        tenants_max: int = TENANTS_MAX,
        on_call: OnCall | None = None,
        library: Library | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        where = Endpoint.of(where)
        self._client = connect_async(where, timeout_s=timeout_s)
        self._scripts = AsyncScripts(
            self._client,
            library or Library(),
            wait_replicas=where.wait_replicas,
            on_call=on_call,
            on_change=on_change,
        )
        self._prefix = prefix
        self._max_queued = dict(max_queued or {})
        self._target_loads = dict(target_loads or {})
        self._tenants_max = tenants_max

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()
        await self._client.aclose()

    async def ping(self) -> None:
        """Check that Redis answers. :raises StoreUnavailableError: when it does not."""
        await self._scripts.perform(self._client.ping, idempotent=False)

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        """Accept tasks, each atomically. Submitting the same id again returns the same task."""
        results: list[Submitted | StoreError] = []
        for pool, batch in _batches(tasks):
            limit = self._max_queued.get(pool, MAX_QUEUED)
            call = submit.encode(self._keys(pool), batch, max_queued=limit)
            try:
                results += submit.decode(await self._scripts.call(call, idempotent=True), batch)
            except StoreUnavailableError:
                raise
            except StoreError as exc:
                results += [exc] * len(batch)
        return results

    async def submitted(self, pool: str, tenant: str, *, key: str, body_hash: str) -> Submitted | None:
        """What an earlier submit with this key created.

        :raises IdempotencyMismatchError: if that submit had another body.
        """
        name = self._keys(pool).of("idempotency", submit.hash_of_key(tenant, key))
        stored = await self._scripts.perform(lambda: self._client.get(name), idempotent=True)
        if stored is None:
            return None
        record = await self.get(TaskId(submit.task_of_key(cast("bytes", stored), body_hash)))
        return None if record is None else Submitted(record=record, repeated=True)

    async def get(self, task: TaskId) -> TaskRecord | None:
        """The task, or ``None``."""
        keys = self._keys_of(task)
        if keys is None:
            return None
        return show.decode(await self._scripts.call(show.encode(keys, [task]), idempotent=True))[0]

    async def list(
        self,
        pool: str,
        tenant: str,
        *,
        states: frozenset[State] | None = None,
        after: TaskId | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> Page:
        """A page of a tenant's tasks in a pool, sorted by id. With ``states``, at most 1,000 tasks are examined."""
        call = show.encode_list(
            self._keys(pool), tenant, states=states, after=after, limit=limit, newest_first=newest_first
        )
        return show.decode_list(await self._scripts.call(call, idempotent=True))

    async def cancel(self, task: TaskId, *, reason: str = "requested") -> TaskRecord | None:
        """Cancel a task: a waiting one at once, a running one at the end of a step."""
        keys = self._keys_of(task)
        if keys is None:
            return None
        return show.decode_cancel(
            await self._scripts.call(show.encode_cancel(keys, task, reason), idempotent=True)
        )

    async def preview(self, task: TaskId) -> tuple[bytes, str] | None:
        """The latest preview and its content type, or ``None``."""
        keys = self._keys_of(task)
        if keys is None:
            return None
        stored = await self._scripts.perform(
            lambda: self._client.get(keys.of("preview", task)), idempotent=True
        )
        return preview.split(cast("bytes", stored)) if stored is not None else None

    async def delete(self, tasks: Sequence[TaskId]) -> int:
        """Delete ended tasks. Returns how many were deleted.

        :raises ConflictError: at the first task that has not ended.
        """
        deleted = 0
        for task in tasks:
            keys = self._keys_of(task)
            if keys is not None:
                deleted += delete.decode(
                    await self._scripts.call(delete.encode(keys, task), idempotent=True), task
                )
        return deleted

    async def pool(self, name: str) -> PoolView:
        """The pool's numbers and all its groups. No group may be left out: the operator could remove its hosts."""
        keys = self._keys(name)
        reply = await self._scripts.call(group.encode_pool(keys), idempotent=True)
        others = [
            await self._scripts.call(call, idempotent=True) for call in group.encode_others(keys, reply)
        ]
        return group.decode_pool(reply, name, others)

    async def measure(self, pool: str) -> PoolTotals:
        """The pool's totals, and the present depths of its queue."""
        call = measure.encode(self._keys(pool))
        return measure.decode(await self._scripts.call(call, idempotent=True), pool)

    async def server_stats(self) -> ServerStats:
        """The state of the Redis server."""
        return stats_of(await self._scripts.perform(self._client.info, idempotent=True))

    async def drain(self, pool: str, group_id: GroupId, *, on: bool = True) -> bool:
        """Set or clear a group's drain mark. Returns whether the group exists."""
        call = group.encode_drain(self._keys(pool), group_id, on=on)
        return group.decode(await self._scripts.call(call, idempotent=True)) is not None

    async def cordon_hosts(self, pool: str, hosts: Sequence[str], *, cordoned: bool = True) -> None:
        """Cordon hosts: from now on, every group that registers with a rank on one of them is marked to drain.

        With ``cordoned=False``, end the cordon of these hosts. A cordon also ends after 10 minutes.
        """
        if hosts:
            await self._scripts.call(
                group.encode_cordon(self._keys(pool), hosts, cordoned=cordoned), idempotent=True
            )

    async def publish_report(self, pool: str, report: PoolReport, *, ttl_s: float) -> None:
        """Publish the operator's report to clients. It is valid for ``ttl_s``, or until the next report."""
        await self._scripts.call(group.encode_report(self._keys(pool), report, ttl_s=ttl_s), idempotent=True)

    async def tick(self, pool: str) -> TickReport:
        """Queue due tasks, end attempts whose lease is over, expire tasks, and list files to delete. See the port."""
        call = tick.encode(
            self._keys(pool), tenants_max=self._tenants_max, target_load=self._target_loads.get(pool)
        )
        return tick.decode(await self._scripts.call(call))

    async def publish_demand(self, pool: str, gateway: str, requests: int, *, ttl_s: float) -> None:
        """Report how many requests of the pool this gateway has. :raises ValueError: when the pool serves no
        requests."""
        target_load = self._target_loads.get(pool)
        if target_load is None:
            raise ValueError(
                f"pool {pool!r} serves no requests, so it has no demand; its kind is not `online`"
            )
        call = publish_demand.encode(
            self._keys(pool), gateway, requests, ttl_s=ttl_s, target_load=target_load
        )
        await self._scripts.call(call, idempotent=True)

    async def set_routing(self, pool: str, policy: RoutingPolicy | None) -> None:
        """Set how all gateways choose groups for requests. With ``None``, they choose as their settings say."""
        key = self._keys(pool).single("meta")
        if policy is None:
            await self._scripts.perform(lambda: self._client.hdel(key, "routing"), idempotent=True)
        else:
            await self._scripts.perform(
                lambda: self._client.hset(key, "routing", policy.value), idempotent=True
            )

    async def set_batching(self, pool: str, changes: Mapping[str, Any]) -> None:
        """Change values of the pool's settings ``batching`` and ``sessions``. See the port.

        The new value ``None`` restores the value that the settings have.
        """
        key = self._keys(pool).single("meta")
        stored, removed = batching_settings.encode(changes)
        if stored:
            await self._scripts.perform(lambda: self._client.hset(key, items=stored), idempotent=True)
        if removed:
            await self._scripts.perform(lambda: self._client.hdel(key, *removed), idempotent=True)

    async def confirm_deleted(self, pool: str, prefixes: Sequence[str]) -> None:
        """Confirm that the files below these prefixes are deleted."""
        if prefixes:
            key = self._keys(pool).single("garbage")
            await self._scripts.perform(lambda: self._client.zrem(key, *prefixes), idempotent=True)

    def _keys(self, pool: str) -> Keys:
        return Keys(prefix=self._prefix, pool=pool)

    def _keys_of(self, task: TaskId) -> Keys | None:
        pool = pool_of(task)
        return self._keys(pool) if pool is not None else None
