"""The pools that this server knows: each with its workload, its validator and its latest numbers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from daybreak.wire import ErrorCode
from daybreak_server.api.problems import ApiError, from_validation, invalid_field, not_found
from daybreak_server.api.store.normalization import Plain
from daybreak_server.domain.ids import TaskId, pool_of
from daybreak_server.domain.pools import PoolView
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.settings.tree import PoolSettings, Settings
from daybreak_server.workloads import registry
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.inputs import ChangedInputError, context_of, restored, stored_form

_log = logging.getLogger(__name__)
FRESH_MS = 1_000
"""How old a pool's numbers may be when they are shown."""


@dataclass(frozen=True)
class PoolEntry:
    """A configured pool and all that a submit needs, made once."""

    name: str
    settings: PoolSettings
    spec: WorkloadSpec[Any]
    context: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, name: str, settings: PoolSettings) -> PoolEntry:
        """Look the workload up. :raises UnknownWorkloadError: when it is not installed."""
        spec = registry.spec(settings.workload, kind=settings.kind)
        return cls(name, settings, spec, context_of(spec, settings.workload_options))

    def parse(self, data: Mapping[str, Any], *, within: str = "input") -> BaseModel:
        """The input, checked. :raises ApiError: ``invalid_input`` with paths below ``within``."""
        try:
            params: BaseModel = self.spec.Params.model_validate(data, context=self.context)
        except ValidationError as exc:
            raise from_validation(exc, within=within) from exc
        return params

    def parse_again(self, stored: str) -> BaseModel:
        """The input of a task that there is, for another one. :raises ApiError: when the pool takes it no longer."""
        try:
            params: BaseModel = restored(self.spec, stored, self.context)
        except ValidationError as exc:
            raise from_validation(exc, within="input") from exc
        return params

    def dump(self, params: BaseModel, sent: Mapping[str, Any]) -> str:
        """The input ``sent``, which was checked as ``params``, as JSON that the ranks read as just that: complete with
        its defaults, but without what is absent by default.

        :raises ApiError: ``invalid_input`` where they would read something else.
        """
        try:
            return stored_form(self.spec, params, sent, self.context)
        except ChangedInputError as exc:
            _log.error("pool %s: %s", self.name, exc)
            raise invalid_field(
                f"input.{exc.field}", f"This input cannot be passed on unchanged: {exc}."
            ) from exc

    def cost(self, params: BaseModel) -> float:
        """What a task costs, for estimates alone: a price that is no number from 0 on counts as 1."""
        try:
            cost = float(self.spec.cost(params))
        except Exception:
            _log.exception("pool %s: the workload cannot price an input", self.name)
            return 1.0
        if not (0 <= cost < math.inf):
            _log.error(
                "pool %s: the workload prices an input at %r, which is no number from 0 on", self.name, cost
            )
            return 1.0
        return cost

    @cached_property
    def plain(self) -> Plain:
        """Brings an input to its plainest form, before it is checked."""
        return Plain(self.spec.Params)

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the input."""
        schema: dict[str, Any] = self.spec.Params.model_json_schema()
        return schema


class Catalog:
    """All configured pools, in the order of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._pools = {name: PoolEntry.of(name, pool) for name, pool in settings.pools.items()}

    def __iter__(self) -> Iterator[PoolEntry]:
        return iter(self._pools.values())

    def get(self, name: str) -> PoolEntry:
        """The pool. :raises ApiError: ``no_such_pool``."""
        entry = self._pools.get(name)
        if entry is None:
            raise ApiError(
                ErrorCode.NO_SUCH_POOL,
                f"There is no pool {name[:40]!r}; there are: {', '.join(self._pools)}.",
            )
        return entry

    def find(self, name: object) -> PoolEntry | None:
        """The pool, if there is one of that name."""
        return self._pools.get(name) if isinstance(name, str) else None

    def of_task(self, task: str) -> tuple[TaskId, PoolEntry]:
        """A task's id, checked, and its pool. :raises ApiError: ``not_found``, also for what is no id."""
        pool = pool_of(task)
        if pool is None or pool not in self._pools:
            raise not_found("There is no such task.")
        return TaskId(task), self._pools[pool]

    def default(self) -> PoolEntry:
        """The pool of ``POST /generate``: ``video``, or the first with the video workload."""
        if "video" not in self._pools:
            for entry in self:
                if entry.spec.name == "video":
                    return entry
        return self.get("video")


class PoolViewCache:
    """The pools' latest numbers: asked of the store at most once a second, by one question at a time."""

    def __init__(self, store: TaskStore, now_ms: Any) -> None:
        self._store = store
        self._now_ms = now_ms
        self._views: dict[str, tuple[int, PoolView]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, pool: str) -> PoolView:
        """The numbers, at most a second old. :raises StoreUnavailableError:"""
        fresh = self._fresh(pool)
        if fresh is not None:
            return fresh
        async with self._locks.setdefault(pool, asyncio.Lock()):
            return self._fresh(pool) or await self.refresh(pool)

    async def refresh(self, pool: str) -> PoolView:
        """Ask the store now."""
        view = await self._store.pool(pool)
        self._views[pool] = (self._now_ms(), view)
        return view

    def latest(self, pool: str) -> PoolView | None:
        """What was last heard, however old; never asks."""
        found = self._views.get(pool)
        return found[1] if found else None

    def _fresh(self, pool: str) -> PoolView | None:
        found = self._views.get(pool)
        return found[1] if found and abs(self._now_ms() - found[0]) < FRESH_MS else None
