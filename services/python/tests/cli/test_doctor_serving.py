"""Tests of what ``daybreakd doctor`` says about pools that answer requests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from daybreak_server import wiring
from daybreak_server.adapters.kube import discovery
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.api.server import ApiServer
from daybreak_server.cli.doctor import cluster, serving
from daybreak_server.cli.doctor.check import Check
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.domain.serving_load import Load
from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server
from testkit.waiting import wait_until

POOLS = {"chat": {"workload": "echo-serve"}, "echo": {"workload": "echo"}}


def settings(tmp_path: Path, valkey: Server, **tree: Any) -> Settings:
    base = {"data_dir": tmp_path, "redis": {"url": valkey.url, "timeout_s": 30}, "http": {"port": 0}}
    return Settings.model_validate({**base, "pools": POOLS, **tree})


def report(found: Settings) -> dict[str, Check]:
    return {check.what: check for check in serving.examine(found)}


@pytest.fixture
def queue(valkey: Server) -> Iterator[RedisQueue]:
    found = RedisQueue(valkey.url, pool="chat", lease_s=30.0)
    yield found
    found.close()


def group(name: str, port: int, **load: int) -> GroupRecord:
    return GroupRecord(
        id=GroupId(name),
        state=GroupState.IDLE,
        endpoint=f"http://127.0.0.1:{port}",
        capacity=4,
        load=Load(**load),
    )


@contextmanager
def listening(status: int = 200, body: Any = None) -> Iterator[int]:
    """A server that answers each GET with this status and with ``body`` as JSON. Yields the server's port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_pool_at_zero_shows_its_policy_only(tmp_path: Path, valkey: Server) -> None:
    checks = report(settings(tmp_path, valkey))
    assert list(checks) == ["policy of chat"]
    assert (checks["policy of chat"].level, checks["policy of chat"].found) == (
        "ok",
        "least_loaded, from the settings",
    )


def test_pools_that_run_tasks_are_not_checked(tmp_path: Path, valkey: Server) -> None:
    assert report(settings(tmp_path, valkey, pools={"echo": {"workload": "echo"}})) == {}


def test_a_policy_that_the_groups_cannot_follow_is_a_warning(
    tmp_path: Path, valkey: Server, queue: RedisQueue
) -> None:
    found = settings(tmp_path, valkey)

    async def choose() -> None:
        store = wiring.build_store(found)
        await store.set_routing("chat", RoutingPolicy.GPU_MEMORY)
        await store.close()

    asyncio.run(choose())
    with listening() as port:
        queue.register(group("g-1", port), ttl_s=60)
        check = report(found)["policy of chat"]
        assert (check.level, check.advice) == (
            "warning",
            "use another policy: `daybreakd routing chat least_loaded`",
        )
        assert check.found.startswith("gpu_memory, set with `daybreakd routing`, but no group")
        queue.register(group("g-1", port, free_memory_bytes=1 << 30), ttl_s=60)
        assert report(found)["policy of chat"].level == "ok"


def test_a_group_that_cannot_be_reached_is_an_error(
    tmp_path: Path, valkey: Server, queue: RedisQueue
) -> None:
    found, closed = settings(tmp_path, valkey), free_port()
    with listening() as port:
        queue.register(group("g-1", port), ttl_s=60)
        assert report(found)["connections to chat"].found == "1 can be reached from here"
        queue.register(group("g-2", closed), ttl_s=60)
        check = report(found)["connections to chat"]
    assert check.level == "error"
    assert check.found.startswith(f"1 of 2 cannot be reached from here: g-2 at http://127.0.0.1:{closed}: ")
    assert "network policies" in check.advice


def test_a_gateway_that_serves_the_pool_is_found(tmp_path: Path, valkey: Server) -> None:
    port = free_port()
    found = settings(tmp_path, valkey, http={"host": "127.0.0.1", "port": port})
    assert "router of chat" not in report(found), "nothing listens yet"
    server = ApiServer(wiring.build_app(found), host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, 60, "the gateway to start")
        check = report(found)["router of chat"]
    finally:
        server.should_exit = True
        thread.join(60)
    assert (check.level, check.found) == ("ok", f"the gateway at 127.0.0.1:{port} serves it")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {}, "answers 404 and does not serve this pool"),
        (200, {"kind": "jobs"}, "has a pool of kind jobs with this name"),
        (200, [], "does not answer as a gateway"),
    ],
)
def test_what_does_not_serve_the_pool_is_an_error(
    tmp_path: Path, valkey: Server, status: int, body: Any, words: str
) -> None:
    with listening(status, body) as port:
        check = report(settings(tmp_path, valkey, http={"host": "127.0.0.1", "port": port}))["router of chat"]
    assert check.level == "error"
    assert words in check.found


# ── KEDA (tests/deploy checks what the chart renders) ────────────────────────────────────────────────────


def scaled_object(*lists: str, pool: str = "chat") -> Mapping[str, Any]:
    target = {"kind": "GeneratorPool", "name": pool}
    triggers = [{"type": "redis", "metadata": {"listName": name}} for name in lists]
    return {"spec": {"scaleTargetRef": target, "triggers": triggers}}


def test_keda_must_read_the_demand_of_each_pool_that_answers_requests() -> None:
    live, wanted = "daybreak:{chat}:live", "daybreak:{chat}:wanted"
    (fine,) = cluster.judge_triggers(["chat"], [scaled_object(live, wanted)])
    assert (fine.level, fine.found) == ("ok", f"reads {wanted}")
    (blind,) = cluster.judge_triggers(["chat"], [scaled_object(live)])
    assert (blind.level, f"reads {live}, so KEDA sees neither requests nor sessions" in blind.found) == (
        "error",
        True,
    )
    (other,) = cluster.judge_triggers(["chat"], [scaled_object(live, "daybreak:{other}:wanted")])
    assert other.level == "error"
    (missing,) = cluster.judge_triggers(["chat"], [scaled_object(live, wanted, pool="other")])
    assert (missing.level, "no ScaledObject" in missing.found) == ("warning", True)


def test_the_scaled_objects_are_read_from_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [scaled_object("daybreak:{chat}:wanted")]
    with listening(200, {"items": items}) as port:
        host = client.Configuration(host=f"http://127.0.0.1:{port}")
        monkeypatch.setattr(discovery, "connect", lambda: (client.ApiClient(host), "daybreak"))
        assert list(discovery.scaled_objects()) == items
        assert [check.level for check in cluster._triggers(["chat"])] == ["ok"]
    with listening(403, {}) as port:
        host.host = f"http://127.0.0.1:{port}"
        (check,) = cluster._triggers(["chat"])
    assert (check.level, "403" in check.found) == ("warning", True)
