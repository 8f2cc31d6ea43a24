from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.workers import WorkerGateway, WorkerProcess, model


@pytest.fixture
def gateway() -> Iterator[WorkerGateway]:
    gateway = WorkerGateway()
    yield gateway
    gateway.stop()


@pytest.fixture
def start_worker(tmp_path: Path, gateway: WorkerGateway) -> Iterator[Callable[..., WorkerProcess]]:
    workers: list[WorkerProcess] = []

    def start(**options: Any) -> WorkerProcess:
        workers.append(WorkerProcess(tmp_path / str(len(workers)), gateway.url, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def start_ready_worker(
    gateway: WorkerGateway, start_worker: Callable[..., WorkerProcess]
) -> Callable[..., WorkerProcess]:
    """Starts the worker ``w1`` like ``start_worker``, and waits until its model ``m`` is ready."""

    def start(**options: Any) -> WorkerProcess:
        gateway.want("w1", model("m"))
        worker = start_worker(**options)
        gateway.wait_for("w1", "m", "ready")
        return worker

    return start
