"""Simulates Ray on pods without processes: Serve's REST API for every head, and a record in Redis for every group.

A group starts when all pods of a replica are ready and Serve's target has room for it. It ends as soon as one of its
pods is terminating or gone. It is never busy, so the operator can remove it at once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from daybreak_server.adapters.kube import parse
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.names import deployment_name
from daybreak_server.domain.pools import GroupRecord, GroupState

TTL_S = 3600.0


@dataclass(slots=True)
class Head:
    """The head of one RayCluster."""

    pool: str
    queue: RedisQueue
    config: Mapping[str, Any] | None = None
    deployed_at: float = 0.0
    """When the config was first deployed, by the monotonic clock."""
    target: int = 0
    ready: dict[str, set[str]] = field(default_factory=dict)
    """The ready pods of each replica."""
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    """The group of each replica."""


class Heads:
    """All heads. ``ranks`` is the number of ranks of each group. Each rank has a pod of its own."""

    def __init__(self, redis: str, *, ranks: int) -> None:
        self._redis, self._ranks = redis, ranks
        self._heads: dict[str, Head] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The base URL of all heads. The URL of a call adds the name of the RayCluster, and Ray's path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop the server, and close the connections to Redis."""
        self._server.shutdown()
        self._server.server_close()
        for head in self._heads.values():
            head.queue.close()

    def pod(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """Handle a watch event of a pod."""
        pod = parse.pod(body)
        pool = pod.cluster.rpartition("-")[0]
        with self._lock:
            if pod.head:
                if pod.ready and pod.cluster not in self._heads:
                    self._heads[pod.cluster] = Head(pool=pool, queue=RedisQueue(self._redis, pool=pool))
                return
            head = self._heads.get(pod.cluster)
            if head is None:
                return
            if gone or pod.terminating:
                head.ready.pop(pod.replica, None)
                if (group := head.groups.pop(pod.replica, None)) is not None:
                    head.queue.deregister(group)
            elif pod.ready:
                head.ready.setdefault(pod.replica, set()).add(pod.name)
                self._form(head)

    def deployed_on(self, number: int) -> float | None:
        """When the last of ``number`` heads got its application; ``None`` until then."""
        times = [head.deployed_at for head in list(self._heads.values()) if head.deployed_at]
        return max(times) if len(times) == number else None

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The reply to one call; ``None`` if there is no such head."""
        cluster, _, subpath = path.removeprefix("/").partition("/")
        with self._lock:
            head = self._heads.get(cluster)
            if head is None:
                return None
            if method == "PUT":
                head.config = next(app for app in body["applications"] if app["name"] == head.pool)
                head.target = head.target or self._ranks * head.config["args"]["groups"]
                head.deployed_at = head.deployed_at or time.monotonic()
                self._form(head)
            elif subpath.endswith("/scale"):
                head.target = body["target_num_replicas"]
                self._form(head)
            else:
                return self._state(head)
            return {}

    def _form(self, head: Head) -> None:
        if head.config is None:
            return
        for replica, pods in head.ready.items():
            room = head.target // self._ranks > len(head.groups)
            if room and len(pods) == self._ranks and replica not in head.groups:
                hosts = tuple(sorted(pods))
                group = GroupRecord(id=new_group_id(), state=GroupState.IDLE, ranks=self._ranks, hosts=hosts)
                head.queue.register(group, ttl_s=TTL_S)
                head.groups[replica] = group

    def _state(self, head: Head) -> Any:
        if head.config is None:
            return {"applications": {}}
        running = [{"state": "RUNNING"}] * (self._ranks * len(head.groups))
        ranks = {"target_num_replicas": head.target, "message": "", "replicas": running}
        app = {
            "status": "RUNNING",
            "message": "",
            "deployed_app_config": head.config,
            "deployments": {deployment_name(head.pool): ranks},
        }
        return {"applications": {head.pool: app}}


def _handler(heads: Heads) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = heads.answer(self.command, self.path, body)
            self.send_response(503 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_PUT = do_POST = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler
