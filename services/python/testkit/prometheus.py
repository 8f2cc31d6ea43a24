"""Runs the installed Prometheus and Alertmanager for a system under test, and keeps the notifications of alerts.

The windows and waiting times of alerts are divided by :data:`FACTOR`, so that an alert that looks back over an hour
fires within seconds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from daybreak_server.local import observe
from daybreak_server.local.free_ports import free_port
from daybreak_server.observability.alerts import Needs, Thresholds
from daybreak_server.observability.prometheus_rules import Place, rule_groups
from testkit.system import request, try_request
from testkit.waiting import wait_until

FACTOR = 300.0
"""One hour becomes 12 s. A shorter window, such as one of five minutes, becomes at least 6 s. In 6 s, Ray is scraped
three times."""
ALERTMANAGERS = ("prometheus-alertmanager", "alertmanager")
"""Names of Alertmanager's program: the name in Debian, and the original one."""
THRESHOLDS = replace(
    Thresholds(),
    oldest_wait_seconds=3,
    wake_seconds=3,
    waste_gpu_seconds=2,
    stream_resets=2,
    failed_requests=2,
    batch_wait_seconds=0.5,
    session_lag_seconds=0.5,
)


def missing_programs() -> list[str]:
    """The Debian packages of Prometheus and Alertmanager that are not installed."""
    missing = [] if shutil.which("prometheus") else ["prometheus"]
    return missing if any(map(shutil.which, ALERTMANAGERS)) else [*missing, "prometheus-alertmanager"]


class Notifications:
    """A webhook that keeps the alerts that Alertmanager sends, with their states, in order of arrival."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def since(self, number: int, name: str, status: str, *, pool: str | None = None) -> dict[str, Any] | None:
        """The first notification of this alert in this state that came after the first ``number`` notifications.

        :param pool: Ignore alerts about other pools.
        """
        for alert in self.received[number:]:
            labels = alert["labels"]
            if (labels["alertname"], alert["status"]) == (name, status) and pool in (
                None,
                labels.get("pool", pool),
            ):
                return alert
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Watch:
    """Runs Alertmanager, and Prometheus with Daybreak's alerts. Keeps the notifications."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.notifications = Notifications()
        self.started = time.time()
        self.alertmanager = f"127.0.0.1:{free_port()}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, gateway: str, ray: Path) -> None:
        """Run Alertmanager and Prometheus, which scrapes this gateway and the targets that the file ``ray`` lists."""
        place = Place(here=f'namespace="{observe.NAMESPACE}"', thresholds=asdict(THRESHOLDS), factor=FACTOR)
        groups = rule_groups(place, frozenset({Needs.GATEWAY, Needs.RAY}))
        self.start_with(
            observe.scrape_config(
                gateway=gateway,
                ray=ray,
                rules=self.write("rules.json", {"groups": groups}),
                interval="1s",
                ray_interval="2s",  # on a busy machine, Ray needs more than a second for its page of 2 MB
                alertmanager=self.alertmanager,
            )
        )

    def start_with(self, config: Mapping[str, Any]) -> None:
        """Run Alertmanager, and Prometheus with ``config``, which must send alerts to :attr:`alertmanager`."""
        receiver = {"name": "test", "webhook_configs": [{"url": self.notifications.url}]}
        route = {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        self._run(
            next(filter(None, map(shutil.which, ALERTMANAGERS))),
            f"--config.file={self.write('alertmanager.json', {'route': route, 'receivers': [receiver]})}",
            f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address={self.alertmanager}",
            "--cluster.listen-address=",
        )
        self._run(
            "prometheus",
            f"--config.file={self.write('prometheus.json', config)}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        self.started = time.time()
        wait_until(self._ready, 60, f"Prometheus and Alertmanager; see {self.folder}/*.log")

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        self.notifications.close()

    def over(self, expression: str, *, step_s: float = 1.0) -> list[dict[str, Any]]:
        """The series of a query over the whole run, without series that never have a finite value."""
        answer = self._ask("query_range", query=expression, start=self.started, end=time.time(), step=step_s)
        return [
            series
            for series in answer["result"]
            if any(value not in {"NaN", "+Inf", "-Inf"} for _, value in series["values"])
        ]

    def now(self, expression: str) -> list[dict[str, Any]]:
        """The series of a query at this moment."""
        return list(self._ask("query", query=expression)["result"])

    def unhealthy_rules(self) -> list[str]:
        """The rules that Prometheus could not evaluate, each with its error."""
        groups = request(f"{self.url}/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert rules
        return [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]

    def write(self, name: str, content: Any) -> Path:
        """Write a file of the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(json.dumps(content, indent=1))
        return path

    def _ask(self, path: str, **parameters: Any) -> Mapping[str, Any]:
        return request(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")["data"]

    def _ready(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                logs = "".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"a program exited with code {process.returncode}:\n{logs}")
        return try_request(f"{self.url}/api/v1/status/buildinfo") and try_request(
            f"http://{self.alertmanager}/api/v2/status"
        )

    def _run(self, *command: str | None) -> None:
        log = self.folder / f"{Path(str(command[0])).name}.log"
        with log.open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            )
