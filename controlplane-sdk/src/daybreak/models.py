"""Models and workers in the synchronous and the asynchronous client: ``client.models`` and ``client.workers``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

from daybreak.core import model_routes
from daybreak.core.retry import Retry, request_with_retries
from daybreak.wire import Model, Worker


class Models:
    """The models that workers serve: ``client.models``."""

    def __init__(self, run: Any, iterate: Any, retry: Retry) -> None:
        self._run = run
        self._iterate = iterate
        self._retry = retry

    def register(
        self,
        alias: str,
        source: str,
        *,
        engine: str | None = None,
        args: Mapping[str, Any] | None = None,
        memory_bytes: int | None = None,
        gpus: int | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        target_load: float | None = None,
        idle_s: float | None = None,
        fallback: str | None = None,
    ) -> Model:
        """Register a model under a name by which clients ask for it. The first request for the model starts it. With a
        ``min_replicas`` above 0, it starts at once.

        ``source`` is what the engine loads: a folder, a file, or a model's name on a hub. ``args`` are options of the
        engine, such as ``{"max_model_len": 4096}``. ``memory_bytes`` is the memory that a replica needs on all of its
        ``gpus`` GPUs together. Without ``memory_bytes``, a replica shares its devices with no other replica. The model
        has one replica for each ``target_load`` requests, at least ``min_replicas`` and at most ``replicas``. Replicas
        above ``min_replicas`` stop when the model has had no request for ``idle_s`` seconds. ``fallback`` is another
        model, which answers while this model has no ready replica. Raises ``ConflictError`` if the name exists.
        """
        body = model_routes.register_body(
            alias,
            source,
            args,
            engine=engine,
            memory_bytes=memory_bytes,
            gpus=gpus,
            replicas=replicas,
            min_replicas=min_replicas,
            target_load=target_load,
            idle_s=idle_s,
            fallback=fallback,
        )
        return cast("Model", self._run(request_with_retries(model_routes.register(body), self._retry)))

    def list(self) -> tuple[Model, ...]:
        """Return all models. Pools that answer requests or serve sessions are listed too, but have no ``state``."""
        found = self._run(request_with_retries(model_routes.list_models(), self._retry))
        return cast("tuple[Model, ...]", found)

    def get(self, alias: str) -> Model:
        """Return a model: its state, why it is in that state, and its replicas."""
        return cast("Model", self._run(request_with_retries(model_routes.get(alias), self._retry)))

    def delete(self, alias: str) -> None:
        """Delete a model. Its replicas finish their requests first; until then its state is ``draining``."""
        self._run(request_with_retries(model_routes.delete(alias), self._retry))

    def watch(self, alias: str, *, timeout_s: float | None = None) -> Iterator[Model]:
        """Yield the model now and after each change, until it is ready or has failed, or ``timeout_s`` has passed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return cast(
            "Iterator[Model]", self._iterate(model_routes.watch(alias, retry=self._retry, until=until))
        )

    def wait(self, alias: str, *, timeout_s: float | None = None) -> Model:
        """Wait until a model is ready. Raises ``ModelFailedError`` if no worker could start it.

        This does not start the model. A request for the model starts it, and so does a ``min_replicas`` above 0.
        """
        return cast("Model", self._run(model_routes.wait(alias, timeout_s=timeout_s, retry=self._retry)))


class Workers:
    """The workers, which run model servers: ``client.workers``."""

    def __init__(self, run: Any, retry: Retry) -> None:
        self._run = run
        self._retry = retry

    def list(self) -> tuple[Worker, ...]:
        """Return all workers that send heartbeats, with their models."""
        found = self._run(request_with_retries(model_routes.workers(), self._retry))
        return tuple(found.workers)


class AsyncModels:
    """The models that workers serve: ``client.models``."""

    def __init__(self, run: Any, iterate: Any, retry: Retry) -> None:
        self._run = run
        self._iterate = iterate
        self._retry = retry

    async def register(
        self,
        alias: str,
        source: str,
        *,
        engine: str | None = None,
        args: Mapping[str, Any] | None = None,
        memory_bytes: int | None = None,
        gpus: int | None = None,
        replicas: int | None = None,
        min_replicas: int | None = None,
        target_load: float | None = None,
        idle_s: float | None = None,
        fallback: str | None = None,
    ) -> Model:
        """Register a model under a name by which clients ask for it. The first request for the model starts it. With a
        ``min_replicas`` above 0, it starts at once.

        ``source`` is what the engine loads: a folder, a file, or a model's name on a hub. ``args`` are options of the
        engine, such as ``{"max_model_len": 4096}``. ``memory_bytes`` is the memory that a replica needs on all of its
        ``gpus`` GPUs together. Without ``memory_bytes``, a replica shares its devices with no other replica. The model
        has one replica for each ``target_load`` requests, at least ``min_replicas`` and at most ``replicas``. Replicas
        above ``min_replicas`` stop when the model has had no request for ``idle_s`` seconds. ``fallback`` is another
        model, which answers while this model has no ready replica. Raises ``ConflictError`` if the name exists.
        """
        body = model_routes.register_body(
            alias,
            source,
            args,
            engine=engine,
            memory_bytes=memory_bytes,
            gpus=gpus,
            replicas=replicas,
            min_replicas=min_replicas,
            target_load=target_load,
            idle_s=idle_s,
            fallback=fallback,
        )
        return cast("Model", await self._run(request_with_retries(model_routes.register(body), self._retry)))

    async def list(self) -> tuple[Model, ...]:
        """Return all models. Pools that answer requests or serve sessions are listed too, but have no ``state``."""
        found = await self._run(request_with_retries(model_routes.list_models(), self._retry))
        return cast("tuple[Model, ...]", found)

    async def get(self, alias: str) -> Model:
        """Return a model: its state, why it is in that state, and its replicas."""
        return cast("Model", await self._run(request_with_retries(model_routes.get(alias), self._retry)))

    async def delete(self, alias: str) -> None:
        """Delete a model. Its replicas finish their requests first; until then its state is ``draining``."""
        await self._run(request_with_retries(model_routes.delete(alias), self._retry))

    def watch(self, alias: str, *, timeout_s: float | None = None) -> AsyncIterator[Model]:
        """Yield the model now and after each change, until it is ready or has failed, or ``timeout_s`` has passed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return cast(
            "AsyncIterator[Model]", self._iterate(model_routes.watch(alias, retry=self._retry, until=until))
        )

    async def wait(self, alias: str, *, timeout_s: float | None = None) -> Model:
        """Wait until a model is ready. Raises ``ModelFailedError`` if no worker could start it.

        This does not start the model. A request for the model starts it, and so does a ``min_replicas`` above 0.
        """
        return cast(
            "Model", await self._run(model_routes.wait(alias, timeout_s=timeout_s, retry=self._retry))
        )


class AsyncWorkers:
    """The workers, which run model servers: ``client.workers``."""

    def __init__(self, run: Any, retry: Retry) -> None:
        self._run = run
        self._retry = retry

    async def list(self) -> tuple[Worker, ...]:
        """Return all workers that send heartbeats, with their models."""
        found = await self._run(request_with_retries(model_routes.workers(), self._retry))
        return tuple(found.workers)
