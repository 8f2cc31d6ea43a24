"""Tests of the sidecar of deploy/raycluster, which deploys missing and failed applications and leaves others alone."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_chart import REPOSITORY

from daybreak_server.domain.names import API_APPLICATION
from testkit.waiting import wait_until

FOLDER = REPOSITORY / "deploy" / "raycluster"
TOKEN = "a-token"


class Head(ThreadingHTTPServer):
    """A stand-in for a Ray head, with the part of Ray Serve's REST API that the sidecar uses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.applications: dict[str, dict[str, Any]] = {}
        self.puts: list[dict[str, Any]] = []
        self.polls = 0
        self.broken = True


class _Handler(BaseHTTPRequestHandler):
    server: Head

    def _answer(self, status: int, body: dict[str, Any] | None = None) -> None:
        data = json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401)
        if self.server.broken:
            return self._answer(500)
        self.server.polls += 1
        return self._answer(200, {"applications": self.server.applications})

    def do_PUT(self) -> None:
        config = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.puts.append(config)
        for app in config["applications"]:
            self.server.applications[app["name"]] = {"status": "RUNNING"}
        self._answer(200)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def head() -> Iterator[Head]:
    server = Head()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def config() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((FOLDER / "20-raycluster.yaml").read_text()))
    data: dict[str, Any] = json.loads(documents[0]["data"]["applications.json"])
    return data


def test_the_sidecar_deploys_lost_and_failed_applications_again(head: Head, tmp_path: Path) -> None:
    """The sidecar deploys once, and again after the head has lost its applications. It deploys a failed application
    as a new attempt."""
    path = tmp_path / "applications.json"
    path.write_text(json.dumps(config()))
    environment = {**os.environ, "RAY_AUTH_TOKEN": TOKEN}
    command = [
        sys.executable,
        str(FOLDER / "serve_deployer.py"),
        str(path),
        f"http://127.0.0.1:{head.server_port}",
        "0.05",
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as deployer:
        try:
            assert deployer.stdout is not None
            assert "Ray Serve does not answer yet: <HTTPError 500" in deployer.stdout.readline()
            head.broken = False
            wait_until(lambda: len(head.puts) == 1, what="the first put")
            polls = head.polls
            wait_until(lambda: head.polls > polls + 3, what="more polls")
            assert len(head.puts) == 1, "the sidecar deployed applications that exist"
            head.applications.clear()
            wait_until(lambda: len(head.puts) == 2, what="a put after the head lost its applications")
            head.applications["video"]["status"] = "DEPLOY_FAILED"
            wait_until(lambda: len(head.puts) == 3, what="a put after an application failed")
        finally:
            deployer.send_signal(signal.SIGTERM)
        assert deployer.wait(timeout=60) == 0
    attempts = [put["applications"][1]["args"]["attempt"] for put in head.puts]
    assert attempts == [1, 1, 2], (
        "a failed application needs new arguments, because Serve does not retry the same arguments"
    )


def test_the_applications_of_the_sidecar_exist_in_the_server() -> None:
    """The import paths exist in the server, and the pool has as many groups as the cluster has workers."""
    applications = {app["name"]: app for app in config()["applications"]}
    assert set(applications) == {API_APPLICATION, "video"}
    for app in applications.values():
        module, _, function = app["import_path"].partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    documents = list(yaml.safe_load_all((FOLDER / "20-raycluster.yaml").read_text()))
    (group,) = documents[1]["spec"]["workerGroupSpecs"]
    assert applications["video"]["args"]["groups"] == group["replicas"] == group["minReplicas"]
