"""The gateway with real groups of ``echo-serve``, each in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from api_support import Api

from daybreak_server.settings.tree import Settings
from testkit.ranks import Ranks
from testkit.valkey import Server
from testkit.waiting import wait_until

POOL = {"workload": "echo-serve", "capacity": 4, "lease": {"lease_s": 4.0}}


@pytest.fixture
def start_group(valkey: Server, tmp_path: Path) -> Iterator[Callable[[], Ranks]]:
    settings = Settings.model_validate(
        {"data_dir": str(tmp_path), "redis": {"url": valkey.url}, "pools": {"answers": POOL}}
    )
    started: list[Ranks] = []

    def start() -> Ranks:
        started.append(Ranks(settings, "answers", tmp_path / f"ranks-{len(started)}", size=1))
        return started[-1]

    yield start
    for group in started:
        group.stop()


@contextmanager
def load(api: Api, clients: int = 6) -> Iterator[list[tuple[int, str]]]:
    """Run clients that each send one request after the other. Yields the status and process of each answer."""
    answers: list[tuple[int, str]] = []
    stopping = threading.Event()

    def client() -> None:
        with httpx2.Client(base_url=api.url, timeout=60, verify=False) as session:
            while not stopping.is_set():
                response = session.post("/v1/pools/answers/serve/", json={"latency_s": 0.02, "size": 1000})
                answers.append((response.status_code, response.headers.get("echo-pid", response.text)))

    with ThreadPoolExecutor(clients) as threads:
        running: list[Future[None]] = [threads.submit(client) for _ in range(clients)]
        try:
            yield answers
        finally:
            stopping.set()
            for future in running:
                future.result()


def test_requests_are_answered_from_zero_through_kills_and_drains(
    start_gateway: Callable[..., Api], start_group: Callable[[], Ranks]
) -> None:
    api = start_gateway(pool=POOL)

    def answered_by(answers: list[tuple[int, str]], group: Ranks) -> None:
        pid = str(group.processes[0].pid)
        wait_until(lambda: pid in {process for _, process in answers}, 60, f"an answer of the group {pid}")

    with load(api) as answers:
        wait_until(
            lambda: api.context.serving_pools.get("answers").router.waiting == 6, 60, "6 requests to wait"
        )
        first = start_group()
        answered_by(answers, first)
        second = start_group()
        answered_by(answers, second)
        first.kill(0)
        third = start_group()
        answered_by(answers, third)
        second.ask_to_leave(0)
        wait_until(lambda: len(api.context.serving_pools.get("answers").router.groups) == 1, 60, "the drain")
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 20, 60, "further answers")
    assert {status for status, _ in answers} == {200}, answers[-5:]
