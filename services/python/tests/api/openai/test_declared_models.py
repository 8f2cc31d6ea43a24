"""Runs the script with which the chart registers the models in its values, against a real gateway."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[5] / "deploy" / "helm" / "daybreak" / "files" / "models.py"
MODEL = {
    "alias": "small",
    "model_name": "org/small",
    "engine": "test",
    "max_model_len": 64,
    "memory_bytes": 5,
}


def register(url: str, *models: dict[str, Any], token: str = "unused") -> subprocess.CompletedProcess[str]:
    environ = {"DAYBREAK_URL": url, "MODELS": json.dumps(models), "DAYBREAK_WORKERS__TOKEN": token}
    return subprocess.run(
        [sys.executable, SCRIPT], env=environ, text=True, capture_output=True, check=False, timeout=60
    )


def test_models_are_registered_once_and_the_same_again_is_a_success(start_models: Callable[..., Any]) -> None:
    """An upgrade runs the script again."""
    models = start_models()
    for words in ("small is registered\n", "small is registered already\n"):
        done = register(models.api.url, MODEL)
        assert (done.returncode, done.stdout) == (0, words), done.stderr
    assert models.show("small")["args"] == {"max_model_len": 64}


def test_a_model_that_differs_is_an_error_that_names_the_difference(start_models: Callable[..., Any]) -> None:
    """The script does not change the registered model, and still registers the other models."""
    models = start_models()
    assert register(models.api.url, MODEL).returncode == 0
    done = register(models.api.url, {**MODEL, "max_model_len": 128, "replicas": 1}, {**MODEL, "alias": "b"})
    assert done.returncode == 1
    assert "small is registered already, but without {'max_model_len': 128}" in done.stdout
    assert "daybreak models delete small" in done.stdout
    assert models.show("small")["args"] == {"max_model_len": 64}
    assert models.show("b")["state"] == "registered"


def test_a_model_that_the_gateway_refuses_is_an_error(start_models: Callable[..., Any]) -> None:
    models = start_models()
    done = register(models.api.url, {**MODEL, "replicas": 1, "min_replicas": 2})
    assert done.returncode == 1
    assert "small is refused: 422" in done.stdout


class _DeletedInBetween(BaseHTTPRequestHandler):
    """A gateway that refuses the model because it exists already. The model is deleted before the script reads it."""

    def do_POST(self) -> None:
        self._answer(409)

    def do_GET(self) -> None:
        self._answer(404)

    def _answer(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"gone")


def test_a_model_that_cannot_be_read_is_an_error_with_the_gateways_answer() -> None:
    """The script does not claim that the models differ."""
    with HTTPServer(("127.0.0.1", 0), _DeletedInBetween) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = register(f"http://127.0.0.1:{server.server_port}", MODEL)
        server.shutdown()
    assert done.returncode == 1
    assert done.stdout == "small is registered already, but cannot be read: 404 gone\n"
