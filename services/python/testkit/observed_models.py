"""The models in the run of :mod:`testkit.observed`, requests to them, and their worker, which runs the test engine."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.models import ModelRecord
from daybreak_server.ports.registry import RegistryView
from testkit.waiting import wait_until
from testkit.workers import WorkerProcess, model

MODEL = "small"
T = TypeVar("T")


class ObservedModels:
    """A worker that registers at the gateway of the run, and the models that the worker serves."""

    def __init__(self, folder: Path, *, gateway: str, redis: str) -> None:
        self._gateway = gateway
        self._redis = redis
        self._broken = folder / "broken"
        self._broken.touch()
        self._registered = False
        self._worker = WorkerProcess(folder / "worker", gateway, worker="observed")

    def close(self) -> None:
        self._worker.close()

    def ask(self) -> None:
        """Send a request to :data:`MODEL`, so that the model starts. The first call also registers the model."""
        if not self._registered:
            self._register(MODEL)
            self._registered = True
        answer = self._send("POST", "/v1/chat/completions", {"model": MODEL, "messages": []})
        assert answer["model"] == MODEL

    def want_what_cannot_start(self) -> None:
        """Register a model whose engine fails and a model that fits on no worker. Wait until the manager wants both."""
        self._register("broken", args={"broken": str(self._broken)}, min_replicas=1)
        self._register("huge", memory_bytes=10**15, min_replicas=1)
        wait_until(lambda: {"broken", "huge"} <= self._view().plan.wanted.keys(), 60, "a plan with both")

    def stop_managers(self) -> None:
        """Write a model whose ``idle_s`` is ``None`` directly to the registry, so that every manager fails to plan."""
        record = ModelRecord(alias="bad", source="s", engine="test", idle_s=None)  # type: ignore[arg-type]
        self._change(lambda registry: registry.add_model(record))

    def restore(self) -> None:
        """Delete all models but :data:`MODEL`, and wait until they are gone."""
        self._change(lambda registry: registry.mark_deleted("bad"))
        for alias in ("broken", "huge"):
            self._send("DELETE", f"/v1/models/{alias}")
        wait_until(lambda: set(self._view().models) == {MODEL}, 60, "the deletion of the other models")

    def _register(self, alias: str, **changes: Any) -> None:
        self._send("POST", "/v1/models/register", model(alias, **{"memory_bytes": 1_000_000, **changes}))

    def _view(self) -> RegistryView:
        return self._change(RedisRegistry.view)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        outgoing = urllib.request.Request(
            self._gateway + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(outgoing, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def _change(self, act: Callable[[RedisRegistry], Awaitable[T]]) -> T:
        async def change() -> T:
            registry = RedisRegistry(self._redis)
            try:
                return await act(registry)
            finally:
                await registry.close()

        return asyncio.run(change())
