"""The models of an observed run: a worker with the engine of tests, and what clients do with its models."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.models import ModelRecord
from testkit.system import request
from testkit.waiting import wait_until
from testkit.workers import WorkerProcess, model

MODEL = "small"


class ObservedModels:
    """A worker, which registers at this gateway, and the models that it serves."""

    def __init__(self, folder: Path, *, gateway: str, redis: str) -> None:
        self._gateway = gateway
        self._redis = redis
        self._broken = folder / "broken"
        self._broken.touch()
        self._worker = WorkerProcess(folder / "worker", gateway, worker="observed")

    def close(self) -> None:
        self._worker.close()

    def ask(self) -> None:
        """Register :data:`MODEL` and ask it, which starts it."""
        self._register(MODEL)
        answer = self._send("POST", "/v1/chat/completions", {"model": MODEL, "messages": []})
        assert answer["model"] == MODEL

    def want_what_cannot_start(self) -> list[str]:
        """Register a model whose engine fails and one that fits nowhere. :returns: their aliases."""
        self._register("broken", args={"broken": str(self._broken)}, min_replicas=1)
        self._register("huge", memory_bytes=10**15, min_replicas=1)
        return ["broken", "huge"]

    def register_unplannable(self, alias: str) -> None:
        """Register, past the API, a model that no manager can plan, because it divides by the target load."""
        record = ModelRecord(alias=alias, source="s", engine="test", target_load=0.0)
        self._change(lambda registry: registry.add_model(record))

    def delete_unplannable(self, alias: str) -> None:
        """Delete such a model."""
        self._change(lambda registry: registry.mark_deleted(alias))
        self._wait_gone(alias)

    def delete(self, alias: str) -> None:
        """Delete a model, and wait until it is gone."""
        self._send("DELETE", f"/v1/models/{alias}")
        self._wait_gone(alias)

    def _register(self, alias: str, **changes: Any) -> None:
        self._send("POST", "/v1/models/register", model(alias, **{"memory_bytes": 1_000_000, **changes}))

    def _wait_gone(self, alias: str) -> None:
        wait_until(lambda: alias not in self._aliases(), 60, f"the end of the model {alias}")

    def _aliases(self) -> set[str]:
        return {shown["id"] for shown in request(f"{self._gateway}/v1/models")["data"]}

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        outgoing = urllib.request.Request(
            self._gateway + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(outgoing, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def _change(self, act: Callable[[RedisRegistry], Awaitable[object]]) -> None:
        async def change() -> None:
            registry = RedisRegistry(self._redis)
            try:
                await act(registry)
            finally:
                await registry.close()

        asyncio.run(change())
