"""Tests of what ``daybreakd doctor`` says about workers and their models, with a real registry."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.cli.doctor import workers
from daybreak_server.cli.doctor.check import Check
from daybreak_server.cli.doctor.checks import examine
from daybreak_server.domain.models import ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST
from daybreak_server.local.free_ports import free_port
from daybreak_server.model_placement.manager import Manager
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server

GB = 10**9


def settings(tmp_path: Path, url: str | None, **tree: Any) -> Settings:
    base = {"data_dir": tmp_path, "redis": {"url": url, "timeout_s": 30}}
    return Settings.model_validate({**base, "pools": {"echo": {"workload": "echo"}}, **tree})


def report(found: Settings) -> dict[str, Check]:
    return {check.what: check for check in workers.examine(found)}


def change(valkey: Server, act: Callable[[RedisRegistry], Awaitable[object]]) -> None:
    """Change the registry, and let a manager plan once."""

    async def run() -> None:
        registry = RedisRegistry(valkey.url)
        try:
            await act(registry)
            await Manager(registry, holder="gateway-a").round()
        finally:
            await registry.close()

    asyncio.run(run())


def model(alias: str, **changes: Any) -> ModelRecord:
    return ModelRecord(alias=alias, source="s", engine="vllm", **changes)


def worker(port: int, *replicas: ReplicaReport, draining: bool = False) -> WorkerRecord:
    return WorkerRecord(
        id="gpu-1",
        url=f"http://127.0.0.1:{port}",
        engines=frozenset({"vllm"}),
        devices={HOST: 8 * GB},
        replicas=replicas,
        draining=draining,
    )


async def add_worker(registry: RedisRegistry, record: WorkerRecord) -> None:
    await registry.add_worker(record, incarnation="1", lease_s=60)


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_there_are_no_checks_without_workers_and_models(tmp_path: Path, valkey: Server) -> None:
    assert report(settings(tmp_path, valkey.url, http={"host": "0.0.0.0"})) == {}
    assert report(settings(tmp_path, None)) == {}


def test_a_registry_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    found = report(settings(tmp_path, None, redis={"url": url, "timeout_s": 1}))
    assert found["models"].level == "error"


def test_models_that_are_well_are_counted_by_state(tmp_path: Path, valkey: Server, port: int) -> None:
    async def act(registry: RedisRegistry) -> None:
        await registry.add_model(model("chat", min_replicas=1))
        await registry.add_model(model("quiet"))
        await add_worker(registry, worker(port, ReplicaReport(alias="chat", state=ReplicaState.READY)))

    change(valkey, act)
    found = report(settings(tmp_path, valkey.url))
    seen = found.pop("worker gpu-1")
    assert seen.level == "ok"
    assert re.fullmatch(rf"alive, last seen \d+ s ago, at http://127.0.0.1:{port}, engines: vllm", seen.found)
    assert {what: (check.level, check.found) for what, check in found.items()} == {
        "manager": ("ok", "gateway-a places models"),
        "workers": ("ok", "1 registered, can be reached from here"),
        "model chat": ("ok", "ready, 1 of 1 wanted replicas are ready"),
        "model quiet": ("ok", "registered. The first request starts it."),
        "models": ("ok", "1 ready, 1 registered"),
    }


def test_a_worker_without_an_engine_is_a_warning(tmp_path: Path, valkey: Server, port: int) -> None:
    change(valkey, lambda registry: add_worker(registry, replace(worker(port), engines=frozenset())))
    found = report(settings(tmp_path, valkey.url))["worker gpu-1"]
    assert (found.level, "engines: none" in found.found, "PATH" in found.advice) == ("warning", True, True)


def test_a_gateway_that_only_fronts_workers_needs_no_ray(
    tmp_path: Path, valkey: Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daybreak_server.cli.doctor.checks.version", lambda package: None)
    base = {"data_dir": tmp_path, "redis": {"url": valkey.url, "timeout_s": 30}, "http": {"port": 0}}
    bare = Settings.model_validate(base)

    def checked(found: Settings) -> dict[str, str]:
        return {check.what: check.level for check in examine(found)}

    before = checked(bare)
    assert (before["ray"], before["torch"]) == ("error", "error")
    change(valkey, lambda registry: add_worker(registry, worker(port)))
    after = checked(bare)
    assert (after["worker gpu-1"], after["pools"]) == ("ok", "ok")
    assert not {"ray", "torch", "pool video", "gpus"} & after.keys()
    named = checked(Settings.model_validate({**base, "pools": {"echo": {"workload": "echo"}}}))
    assert named["ray"] == "error", "the groups of the pool echo run on Ray"


def test_a_model_that_failed_is_shown_with_its_reason(tmp_path: Path, valkey: Server, port: int) -> None:
    failed = ReplicaReport(alias="chat", state=ReplicaState.FAILED, reason="It ended with code 3.")

    async def act(registry: RedisRegistry) -> None:
        await registry.add_model(model("chat", min_replicas=1))
        await add_worker(registry, worker(port, failed))

    change(valkey, act)
    found = report(settings(tmp_path, valkey.url))
    assert found["model chat"].level == "warning"
    assert "It ended with code 3." in found["model chat"].found
    assert "models" not in found


def test_a_model_that_fits_nowhere_is_shown_with_what_is_missing(
    tmp_path: Path, valkey: Server, port: int
) -> None:
    async def act(registry: RedisRegistry) -> None:
        await registry.add_model(model("large", min_replicas=1, memory_bytes=80 * GB))
        await add_worker(registry, worker(port))

    change(valkey, act)
    found = report(settings(tmp_path, valkey.url))
    assert found["model large"].level == "warning"
    assert "80.0 GB" in found["model large"].found


def test_models_that_need_a_worker_say_that_there_is_none(tmp_path: Path, valkey: Server) -> None:
    change(valkey, lambda registry: registry.add_model(model("chat", min_replicas=1)))
    found = report(settings(tmp_path, valkey.url))
    assert (found["workers"].level, "need 1" in found["workers"].found) == ("warning", True)


def test_a_worker_that_cannot_be_reached_is_an_error(tmp_path: Path, valkey: Server) -> None:
    change(valkey, lambda registry: add_worker(registry, worker(free_port(), draining=True)))
    found = report(settings(tmp_path, valkey.url))
    assert (found["workers"].level, "gpu-1" in found["workers"].found) == ("error", True)


def test_the_check_says_how_many_workers_it_tried(
    tmp_path: Path, valkey: Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daybreak_server.cli.doctor.workers.WORKERS_MAX", 1)

    async def act(registry: RedisRegistry) -> None:
        await add_worker(registry, worker(port))
        await add_worker(registry, replace(worker(port), id="gpu-2"))

    change(valkey, act)
    found = report(settings(tmp_path, valkey.url))["workers"]
    assert (found.level, found.found) == ("ok", "2 registered, the first 1 can be reached from here")


def test_models_without_a_manager_are_an_error(tmp_path: Path, valkey: Server) -> None:
    async def act() -> None:
        registry = RedisRegistry(valkey.url)
        await registry.add_model(model("chat"))
        await registry.close()

    asyncio.run(act())
    found = report(settings(tmp_path, valkey.url))
    assert found["manager"].level == "error"
    assert found["workers"].found == "none is registered, and none is needed"


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("gateway.example", None, True),
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", "secret", False),
    ],
)
def test_a_missing_token_is_a_problem_if_others_reach_the_gateway(
    tmp_path: Path, host: str, token: str | None, warned: bool
) -> None:
    found = report(settings(tmp_path, None, http={"host": host}, workers={"token": token}))
    assert ("workers.token" in found) == warned
