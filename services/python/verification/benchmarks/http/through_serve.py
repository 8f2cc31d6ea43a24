"""Measures submits through Ray Serve: `daybreakd up` starts the deployment `APIEntrypoint` behind Serve's proxy."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from daybreak_server.local.free_ports import free_port
from verification.benchmarks.http import load, parts, plan
from verification.results import Row

TARGET_MS = 10.0


def measure(effort: plan.Effort) -> list[Row]:
    """Measure with one request at a time and with 16 at once, on a whole Daybreak that has no groups."""
    with tempfile.TemporaryDirectory(prefix="daybreak-serve-") as name:
        folder = Path(name)
        port = free_port()
        config = folder / "daybreak.yaml"
        tree = {
            "data_dir": str(folder / "d"),
            "http": {"port": port},
            "pools": {"echo": {"workload": "echo", "groups": 0}},
        }
        config.write_text(json.dumps(tree))
        command = [str(Path(sys.executable).parent / "daybreakd"), "up", "--config", str(config)]
        with parts.process(
            command,
            port=port,
            cores=parts.everywhere(),
            log=folder / "log",
            ready=lambda _: _answers(folder / "d"),
            start_s=300,
        ):
            serve_port = _port(folder / "d")
            load.run(serve_port, plan.plain, concurrency=4, seconds=1.0)
            return [_row(serve_port, at, effort) for at in (1, 16)]


def _row(port: int, at: int, effort: plan.Effort) -> Row:
    sample = load.run(port, plan.plain, concurrency=at, seconds=max(2.0, effort.seconds))
    return Row(
        f"POST /v1/tasks through Ray Serve, {at if at > 1 else 'one'} at {'once' if at > 1 else 'a time'}: p50",
        round(sample.p50_ms, 2),
        "ms",
        target=f"< {TARGET_MS:g} ms" if at == 1 else "",
        held=sample.p50_ms < TARGET_MS if at == 1 else None,
        note=f"{sample.rps:,.0f} requests/s, p99 {sample.p99_ms:.1f} ms; "
        "Ray, gateway, Redis and client share all cores",
    )


def _port(data: Path) -> int:
    return int((data / "api.port").read_text())


def _answers(data: Path) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{_port(data)}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False
