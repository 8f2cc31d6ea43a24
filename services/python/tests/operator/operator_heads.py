"""Ray Serve's REST API for all simulated heads.

One HTTP server answers for all heads. Each path begins with a RayCluster's name.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Head:
    """A head that answers, and the pool's application on it."""

    config: dict[str, Any] | None = None
    target: int = 0
    running: int = 0


@dataclass(slots=True)
class Heads:
    """All heads. ``pool`` is the name of the application, and ``deployment`` is the name of its deployment.

    A group has ``ranks`` ranks.
    """

    pool: str
    deployment: str
    ranks: int
    wrong: list[str] = field(default_factory=list)
    _heads: dict[str, Head] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Listen. :returns: the address."""
        heads = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(heads.applications(self.path))

            def do_PUT(self) -> None:
                self._answer(heads.put(self.path, self._body()))

            def do_POST(self) -> None:
                self._answer(heads.scale(self.path, self._body()))

            def _body(self) -> Any:
                return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, answer: Any) -> None:
                self.send_response(503 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    # Called by the simulation.

    def up(self, clusters: set[str]) -> None:
        """Let these heads answer from now on."""
        with self._lock:
            for name in clusters:
                self._heads.setdefault(name, Head())

    def gone(self, cluster: str) -> None:
        """Remove a head. It has no fault tolerance, so its state is lost too."""
        with self._lock:
            self._heads.pop(cluster, None)

    def target(self, cluster: str) -> int | None:
        """The target number of ranks; ``None`` without an application."""
        with self._lock:
            head = self._heads.get(cluster)
            return None if head is None or head.config is None else head.target

    def runs(self, cluster: str, ranks: int) -> None:
        """Set the number of ranks that run."""
        with self._lock:
            if cluster in self._heads:
                self._heads[cluster].running = ranks

    # Called by the operator.

    def applications(self, path: str) -> Any:
        """``GET /api/serve/applications/``."""
        with self._lock:
            head = self._heads.get(path.split("/")[1])
            if head is None:
                return None
            if head.config is None:
                return {"applications": {}}
            replicas = [{"state": "RUNNING"}] * head.running
            deployment = {"target_num_replicas": head.target, "message": "", "replicas": replicas}
            app = {
                "status": "RUNNING",
                "message": "",
                "deployed_app_config": head.config,
                "deployments": {self.deployment: deployment},
            }
            return {"applications": {self.pool: app}}

    def put(self, path: str, config: Any) -> Any:
        """``PUT /api/serve/applications/``: an unchanged config changes nothing."""
        with self._lock:
            head = self._heads.get(path.split("/")[1])
            if head is None:
                return None
            own_config = next(app for app in config["applications"] if app["name"] == self.pool)
            if head.config != own_config:
                head.config, head.target = own_config, self.ranks * own_config["args"]["groups"]
            return {}

    def scale(self, path: str, body: Any) -> Any:
        """``POST /api/v1/applications/<app>/deployments/<name>/scale``."""
        with self._lock:
            head = self._heads.get(path.split("/")[1])
            if head is None:
                return None
            if body["target_num_replicas"] % self.ranks:
                self.wrong.append(f"{body} is not a whole number of groups: Serve would never apply it")
            if not path.endswith(f"/applications/{self.pool}/deployments/{self.deployment}/scale"):
                self.wrong.append(f"{path} names no deployment")
            head.target = body["target_num_replicas"]
            return {}
