"""The configured pools, each with the workload that validates its inputs, and a cache of the pools' latest views."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError, from_validation, invalid_field, task_not_found
from daybreak_server.api.intake.normalization import Normalizer
from daybreak_server.domain.ids import TaskId, pool_of
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import PoolView
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.settings.pool_workload import workload_spec
from daybreak_server.settings.tree import PoolSettings, Settings
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.inputs import ChangedInputError, context_of, restored, stored_form

_log = logging.getLogger(__name__)
FRESH_MS = 1_000
"""The maximum age of a pool's view before it is read again."""


@dataclass(frozen=True)
class PoolEntry:
    """A configured pool, and what the API needs to know about the pool's workload."""

    name: str
    settings: PoolSettings
    spec: WorkloadSpec[Any]
    context: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, name: str, settings: PoolSettings) -> PoolEntry:
        """Look up the pool's workload. :raises UnknownWorkloadError: if it is not installed."""
        spec = workload_spec(settings)
        return cls(name, settings, spec, context_of(spec, settings.workload_options))

    @property
    def takes_tasks(self) -> bool:
        """Whether clients may submit tasks to the pool. The groups of an ``online`` pool that takes tasks also answer
        requests."""
        return self.spec.takes_tasks

    @property
    def what_to_send(self) -> str:
        """A sentence for errors: what clients send to the pool, and where."""
        return {
            PoolKind.JOBS: "Submit tasks to it with POST /v1/tasks.",
            PoolKind.ONLINE: f"Send requests to /v1/pools/{self.name}/serve/.",
            PoolKind.SESSIONS: "Open sessions in it with POST /v1/sessions.",
        }[PoolKind(self.spec.kind)]

    @property
    def model_name(self) -> str | None:
        """The name of the pool's model in requests: the option ``model_name``, else the name of the model's folder."""
        named = self.settings.options.get("model_name")
        if isinstance(named, str):
            return named
        return PurePosixPath(self.settings.model.rstrip("/")).name if self.settings.model else None

    def parse(self, data: Mapping[str, Any], *, within: str = "input") -> BaseModel:
        """The validated input. :raises ApiError: ``invalid_input`` with paths below ``within``."""
        try:
            params: BaseModel = self.spec.Params.model_validate(data, context=self.context)
        except ValidationError as exc:
            raise from_validation(exc, within=within) from exc
        return params

    def parse_stored(self, stored: str) -> BaseModel:
        """The input of a stored task, validated again. :raises ApiError: if the pool no longer accepts it."""
        try:
            params: BaseModel = restored(self.spec, stored, self.context)
        except ValidationError as exc:
            raise from_validation(exc, within="input") from exc
        return params

    def dump(self, params: BaseModel, sent: Mapping[str, Any]) -> str:
        """The JSON of an input, as it is stored for the ranks.

        It includes defaults, except a default of ``None``.

        ``sent`` is the client's input and ``params`` its validated form; the ranks must read the same ``params`` from
        the JSON.

        :raises ApiError: ``invalid_input`` if the ranks would read something else.
        """
        try:
            return stored_form(self.spec, params, sent, self.context)
        except ChangedInputError as exc:
            _log.error("pool %s: %s", self.name, exc)
            raise invalid_field(
                f"input.{exc.field}",
                f"The workload would receive a different value than was submitted: {exc}.",
            ) from exc

    def cost(self, params: BaseModel) -> float:
        """The cost of a task. Estimates of its wait and run time use the cost, and so does the charge for its tenant.

        A cost that is not a finite number ≥ 0 counts as 1.
        """
        try:
            cost = float(self.spec.cost(params))
        except Exception:
            _log.exception("pool %s: the workload's cost function failed; the cost counts as 1", self.name)
            return 1.0
        if not (0 <= cost < math.inf):
            _log.error(
                "pool %s: the workload's cost is %r, not a finite number ≥ 0; the cost counts as 1",
                self.name,
                cost,
            )
            return 1.0
        return cost

    @cached_property
    def normalize(self) -> Normalizer:
        """Normalizes an input before it is validated."""
        return Normalizer(self.spec.Params)

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
                f"There is no pool {name[:40]!r}. Use one of: {', '.join(self._pools)}.",
            )
        return entry

    def for_tasks(self, name: str) -> PoolEntry:
        """The pool, for a task. :raises ApiError: ``no_such_pool``, or ``invalid_input`` if it takes no tasks."""
        entry = self.get(name)
        if not entry.takes_tasks:
            raise invalid_field(
                "pool",
                f"The pool {name!r} has the kind {entry.spec.kind}, so it takes no tasks. {entry.what_to_send}",
            )
        return entry

    def find(self, name: object) -> PoolEntry | None:
        """The pool of that name, if there is one."""
        return self._pools.get(name) if isinstance(name, str) else None

    def find_task(self, task: str) -> tuple[TaskId, PoolEntry]:
        """A task's id and its pool. :raises ApiError: ``not_found``, also if the id is malformed."""
        pool = pool_of(task)
        if pool is None or pool not in self._pools:
            raise task_not_found(task)
        return TaskId(task), self._pools[pool]

    def default(self) -> PoolEntry:
        """The pool of ``POST /generate``: ``video`` if it exists, otherwise the first pool with the video workload.

        :raises ApiError: ``no_such_pool`` if there is neither.
        """
        if "video" not in self._pools:
            for entry in self:
                if entry.spec.name == "video":
                    return entry
        return self.get("video")


class PoolViewCache:
    """The pools' latest views. :meth:`get` reads each one from the store at most once a second."""

    def __init__(self, store: TaskStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._views: dict[str, tuple[int, PoolView]] = {}
        self._reads = 0
        self._shown: dict[str, int] = {}
        """For each pool: the number of the read that returned its latest view."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._subscribers: dict[str, list[Callable[[PoolView], None]]] = {}

    def subscribe(self, pool: str, on_view: Callable[[PoolView], None]) -> None:
        """Call ``on_view`` with each new view of the pool."""
        self._subscribers.setdefault(pool, []).append(on_view)

    async def get(self, pool: str) -> PoolView:
        """The view, at most a second old. :raises StoreUnavailableError:"""
        fresh = self._fresh(pool)
        if fresh is not None:
            return fresh
        async with self._locks.setdefault(pool, asyncio.Lock()):
            return self._fresh(pool) or await self.refresh(pool)

    async def refresh(self, pool: str) -> PoolView:
        """Read the view from the store now. :raises StoreUnavailableError:"""
        self._reads += 1
        read = self._reads
        view = await self._store.pool(pool)
        if read < self._shown.get(pool, 0):
            # A later read has returned already. If subscribers got this older view after the newer one, groups would
            # seem to leave and return.
            return view
        self._shown[pool] = read
        self._views[pool] = (self._now_ms(), view)
        for on_view in self._subscribers.get(pool, ()):
            on_view(view)
        return view

    def latest(self, pool: str) -> PoolView | None:
        """The last view, of any age, without a call to the store; ``None`` if there was none."""
        found = self._views.get(pool)
        return found[1] if found else None

    def _fresh(self, pool: str) -> PoolView | None:
        found = self._views.get(pool)
        return found[1] if found and abs(self._now_ms() - found[0]) < FRESH_MS else None
