"""Tests that a stopping gateway writes the log line of every submit that it answered."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

from daybreak_server.local.free_ports import free_port
from daybreak_server.settings.tree import Settings
from testkit.pools import make_settings
from testkit.valkey import Server
from testkit.waiting import wait_until

PROGRAM = """
import sys
from daybreak_server.entrypoints.gateway import run_gateway
from daybreak_server.observability import line_writer
from daybreak_server.settings.tree import Settings
line_writer.LATER_S = 3600
sys.exit(run_gateway(Settings.model_validate_json(sys.argv[1])))
"""


def test_sigterm_loses_no_line_of_a_submit(valkey: Server, tmp_path: Path) -> None:
    """In this test, lines may wait for an hour, so the gateway writes them only when it ends."""
    settings = make_settings(valkey, tmp_path)
    tree = settings.model_dump(mode="json", exclude_unset=True)
    port = free_port()
    tree |= {"http": {"port": port}, "log": {"format": "json"}}
    shown = Settings.model_validate(tree).model_dump_json(exclude_unset=True)
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, shown], stderr=subprocess.PIPE) as process:
        try:
            with httpx2.Client(base_url=url) as client:

                def is_ready() -> bool:
                    assert process.poll() is None
                    try:
                        return client.get("/healthz").status_code == 200
                    except httpx2.TransportError:
                        return False

                wait_until(is_ready, 60, "the gateway to listen")
                body = {"pool": next(iter(settings.pools)), "input": {"message": "hi"}}
                accepted = [client.post("/v1/tasks", json=body).json()["id"] for _ in range(5)]
        finally:
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["task"] for line in lines if line.get("change") == "submitted"] == accepted
