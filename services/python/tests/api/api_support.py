"""Helpers for tests of the API: a running server, a stand-in for a group's leader, and a reader of event streams."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from daybreak_server import wiring
from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.adapters.redis.sessions.events import RedisSessionEvents
from daybreak_server.adapters.redis.sessions.store import RedisSessionStore
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.adapters.upstreams.client import HttpUpstreams
from daybreak_server.api.app import build_app
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.server import ApiServer
from daybreak_server.api.services import Services
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import (
    ArtifactRef,
    Claim,
    EventDraft,
    Failed,
    Finished,
    Outcome,
    Released,
    Settled,
    Stopped,
)
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server
from testkit.waiting import wait_until

POOL = "echo"


def make_settings(**changes: Any) -> Settings:
    """Settings with two pools and with the changes that a test needs."""
    tree: dict[str, Any] = {
        "pools": {"echo": {"workload": "echo"}, "clips": {"workload": "video"}},
        "tenants": {"heavy": {"weight": 3}},
    }
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return Settings.model_validate(tree)


@dataclass
class Api:
    """A running API server, its parts, and an HTTP client for it."""

    url: str
    context: Dependencies
    client: httpx2.Client
    blobs: LocalBlobs
    server: ApiServer
    thread: threading.Thread

    def submit(
        self, input: dict[str, Any] | None = None, *, status: int = 202, **body: Any
    ) -> dict[str, Any]:
        """POST /v1/tasks. :returns: the task, or the error as a problem object."""
        headers = body.pop("headers", {})
        body = {"pool": POOL, "input": input or {"message": "hi"}, **body}
        response = self.client.post("/v1/tasks", json=body, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def get(self, task: str, **headers: str) -> dict[str, Any]:
        """GET /v1/tasks/{id}."""
        response = self.client.get(f"/v1/tasks/{task}", headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    def until(self, task: str, state: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the task is in the state ``state``. :returns: the task."""

        def reached() -> dict[str, Any] | None:
            task_json = self.get(task)
            return task_json if task_json["state"] == state else None

        task_json = wait_until(reached, timeout, f"{task} to be {state}")
        assert task_json is not None
        return task_json


@dataclass
class FakeLeader:
    """A stand-in for the leader of a group of one rank. The test calls its methods."""

    queue: RedisQueue
    blobs: LocalBlobs
    folder: Path
    group: GroupRecord = field(
        default_factory=lambda: GroupRecord(
            id=new_group_id(), state=GroupState.IDLE, hosts=("here",), pids=(1,), loads=1
        )
    )

    def register(self, ttl_s: float = 60) -> GroupRecord:
        return self.queue.register(self.group, ttl_s=ttl_s)

    def claim(self, wait_s: float = 30) -> Claim:
        self.register()
        claim = self.queue.claim(self.group, wait_s=wait_s)
        assert claim is not None, f"nothing to claim in {wait_s} s"
        return claim

    def progress(self, claim: Claim, step: int, steps: int, phase: str = "work") -> Any:
        data = {
            "phase": phase,
            "fraction": step / steps,
            "step": step,
            "steps": steps,
            "eta_s": float(steps - step),
        }
        return self.queue.report(claim.lease, [EventDraft(type="progress", data=data)], fields=data)

    def upload(
        self, claim: Claim, name: str, content: bytes, content_type: str = "text/plain"
    ) -> ArtifactRef:
        source = self.folder / "upload"
        source.write_bytes(content)
        key = f"{claim.lease.task}/{claim.lease.token}/{name}"
        list(self.blobs.upload(key, source, content_type=content_type))
        digest = hashlib.sha256(content).hexdigest()
        return ArtifactRef(
            name=name, key=key, content_type=content_type, size_bytes=len(content), sha256=digest
        )

    def settle(self, claim: Claim, outcome: Outcome) -> Settled:
        return self.queue.settle(claim.lease, outcome)

    def finish(self, claim: Claim, *files: ArtifactRef) -> Settled:
        return self.settle(claim, Finished(artifacts=files))

    def fail(self, claim: Claim, *, permanent: bool = False) -> Settled:
        return self.settle(claim, Failed(code="boom", message="it broke", permanent=permanent))

    def release(self, claim: Claim) -> Settled:
        return self.settle(claim, Released())

    def stop(self, claim: Claim) -> Settled:
        return self.settle(claim, Stopped())


class Serving:
    """An API server that runs in a thread of its own until the `with` block ends."""

    def __init__(
        self, valkey: Server, folder: Path, port: int, settings: Settings, in_memory: Any = None
    ) -> None:
        self.blobs = LocalBlobs(folder / "blobs")
        metrics = GatewayMetrics()
        store = RedisStore(
            valkey.url,
            max_queued={n: p.max_queued for n, p in settings.pools.items()},
            tenants_max=settings.metrics.tenants_max,
            target_loads=wiring.target_loads(settings),
            on_call=metrics.observe_script,
        )
        events = RedisEvents(valkey.url)
        registry = RedisRegistry(valkey.url)
        sessions = RedisSessionStore(valkey.url, limits=wiring.session_limits(settings))
        session_events = RedisSessionEvents(valkey.url, sessions)

        async def close() -> None:
            await session_events.close()
            await sessions.close()
            await registry.close()
            await store.close()
            await events.close()

        services = Services(
            settings=settings,
            store=store,
            events=events,
            housekeeper=store,
            measurements=store,
            demand=store,
            registry=registry,
            batching=store,
            upstreams=HttpUpstreams(),
            sessions=in_memory or sessions,
            session_events=in_memory or session_events,
            blobs=self.blobs,
            metrics=metrics,
            close=close,
        )
        self.app = build_app(services)
        self.server = ApiServer(self.app, host="127.0.0.1", port=port)
        self.thread = threading.Thread(target=self.server.run, name="api under test")

    def __enter__(self) -> Api:
        self.thread.start()
        wait_until(lambda: self.server.started or not self.thread.is_alive(), 60, "the server to start")
        port = self.server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(
            base_url=url, timeout=60, verify=False
        )  # creating a TLS context takes 75 ms
        return Api(
            url=url,
            context=self.app.state.context,
            client=self.client,
            blobs=self.blobs,
            server=self.server,
            thread=self.thread,
        )

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive(), "the server did not stop"


def read_events(
    url: str, task: str, *, after: str | None = None, until: str | None = None, timeout: float = 60
) -> list[dict[str, Any]]:
    """The events of a task's stream, up to its end or to the first event of type ``until``.

    The list is empty if the server responds with 204.
    """
    events = []
    headers = {} if after is None else {"Last-Event-ID": after}
    path = f"{url}/v1/tasks/{task}/events"
    with httpx2.stream("GET", path, headers=headers, timeout=timeout, verify=False) as response:
        assert response.status_code in {200, 204}, response.read()
        for event in parse(response.iter_lines()):
            events.append(event)
            if event["type"] == until:
                break
    return events


def parse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Events from the lines of ``text/event-stream``. Checks that the fields `id` and `event` agree with the data."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and "data" in fields:
            event = json.loads(fields["data"])
            assert event["type"] == fields["event"]
            assert event.get("id") == fields.get("id")
            yield event
            fields = {}
