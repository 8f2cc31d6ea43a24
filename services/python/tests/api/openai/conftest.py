"""Fixtures for models: real gateways with a real registry, real workers, and a test engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from api_support import Api

from testkit.waiting import wait_until
from testkit.workers import WorkerProcess


class Models:
    """A gateway with its workers and models."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.workers: list[WorkerProcess] = []
        self._folder = folder

    def start_worker(self, worker: str, **options: Any) -> WorkerProcess:
        folder = self._folder / f"{worker}-{len(self.workers)}"
        self.workers.append(WorkerProcess(folder, self.api.url, worker=worker, **options))
        started = self.workers[-1]
        wait_until(lambda: worker in self.worker_ids() or started.process.poll() is not None, 60, worker)
        return started

    def worker_ids(self) -> list[str]:
        view = self.api.context.registry_cache.latest
        return [worker.id for worker in view.workers] if view is not None else []

    def register(self, alias: str, **fields: Any) -> dict[str, Any]:
        body = {
            "alias": alias,
            "source": f"org/{alias}",
            "engine": "test",
            "memory_bytes": 1_000_000,
            **fields,
        }
        response = self.api.client.post("/v1/models/register", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    def show(self, alias: str) -> dict[str, Any]:
        response = self.api.client.get(f"/v1/models/{alias}")
        assert response.status_code == 200, response.text
        return response.json()

    def wait_for(self, alias: str, state: str, *, ready: int | None = None) -> dict[str, Any]:
        def there() -> bool:
            shown = self.show(alias)
            return shown["state"] == state and (ready is None or shown["ready"] == ready)

        wait_until(there, 120, f"{alias} is {state}")
        return self.show(alias)

    def ask(self, alias: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        body = {"model": alias, "messages": [{"role": "user", "content": "hello"}], **body}
        return self.api.client.post("/v1/chat/completions", json=body, headers=headers)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@pytest.fixture
def start_models(start_api: Callable[..., Api], tmp_path: Path) -> Iterator[Callable[..., Models]]:
    """A function that starts a gateway for models. Its arguments are settings of workers and of the router."""
    started: list[Models] = []

    def start(*, workers: dict[str, Any] | None = None, **router: Any) -> Models:
        settings = {"heartbeat_s": 0.2, "lease_s": 3.0, **(workers or {})}
        api = start_api(pools={"echo": {"workload": "echo"}}, router=router, workers=settings)
        started.append(Models(api, tmp_path))
        return started[-1]

    yield start
    for models in started:
        models.close()
