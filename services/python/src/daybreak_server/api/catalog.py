"""The pools that this server knows: each with its workload, its validator and its latest numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from daybreak.wire import ErrorCode
from daybreak_server.api.problems import ApiError, from_validation, not_found
from daybreak_server.domain.ids import TaskId, pool_of
from daybreak_server.domain.pools import PoolView
from daybreak_server.ports.store import TaskStore
from daybreak_server.settings import PoolSettings, Settings
from daybreak_server.workloads import registry
from daybreak_server.workloads.base import WorkloadSpec

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
        options = {**settings.options, **({"model": settings.model} if settings.model else {})}
        return cls(name, settings, spec, {"limits": spec.limits(options)})

    def parse(self, data: Mapping[str, Any], *, within: str = "input") -> BaseModel:
        """The input, checked. :raises ApiError: ``invalid_input`` with paths below ``within``."""
        try:
            params: BaseModel = self.spec.Params.model_validate(data, context=self.context)
        except ValidationError as exc:
            raise from_validation(exc, within=within) from exc
        return params

    def dump(self, params: BaseModel) -> str:
        """The input as JSON, complete with its defaults, but without what is absent by default."""
        absent = {name for name in self._optional if getattr(params, name) is None}
        return params.model_dump_json(exclude=absent)

    @cached_property
    def _optional(self) -> tuple[str, ...]:
        fields = self.spec.Params.model_fields
        return tuple(name for name, field in fields.items() if field.default is None)

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


class PoolNumbers:
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
