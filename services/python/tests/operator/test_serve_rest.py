"""The operator's use of Serve's REST API works against a real Ray with token authentication."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_samples import pool

from daybreak_server.adapters.ray.serve_rest import ServeRest
from daybreak_server.domain.names import deployment_name
from daybreak_server.local.free_ports import free_port
from daybreak_server.operator.planner import render
from daybreak_server.ports.cluster import (
    ClusterRefusedError,
    ClusterUnavailableError,
    RayCluster,
    ServeView,
)
from testkit.system import kill_tree
from testkit.waiting import wait_until_async

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
HEAD = RayCluster(name="head", uid="u", resource_version="1", ranks=2)
TOKEN = secrets.token_hex(32)


@pytest.fixture
def short_path() -> Iterator[str]:
    """A folder for Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def dashboard(tmp_path: Path, short_path: str) -> Iterator[str]:
    """Start a Ray head, and yield the address of its dashboard.

    The ranks that start there wait for a Redis that does not exist. Such a rank still counts as running.
    """
    port, dashboard_port = free_port(), free_port()
    environ = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "DAYBREAK_POOLS__VIDEO__WORKLOAD": "echo",
        "DAYBREAK_POOLS__VIDEO__RANKS": "2",
        "DAYBREAK_POOLS__VIDEO__DEVICE": "cpu",
        "DAYBREAK_REDIS__URL": "redis://127.0.0.1:1/0",
        "DAYBREAK_DATA_DIR": str(tmp_path / "data"),
    }
    ray_options = {
        "port": port,
        "dashboard-port": dashboard_port,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
        "temp-dir": short_path,
        "num-cpus": 4,
        "object-store-memory": 80_000_000,
    }
    options = [f"--{name}={value}" for name, value in ray_options.items()]
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options]
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(ray, env=environ, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{dashboard_port}"
    finally:
        kill_tree(process)


def rest(dashboard: str, token: str | None) -> ServeRest:
    """The operator's client, with this token."""

    async def find(cluster: RayCluster, *, refresh: bool = False) -> str | None:
        return token

    return ServeRest(address=lambda cluster: dashboard, token=find)


async def test_the_application_is_deployed_and_scaled(dashboard: str) -> None:
    """The application goes from nothing to one group, to zero, and to two. A request with a wrong token is refused."""
    serve = rest(dashboard, TOKEN)

    async def observe() -> ServeView | None:
        try:
            return await serve.observe(HEAD, application="video")
        except ClusterUnavailableError:
            return None

    async def wait_for_view(**wanted: object) -> ServeView:
        async def wanted_view() -> ServeView | None:
            view = await observe()
            same = view is not None and all(getattr(view, name) == value for name, value in wanted.items())
            return view if same else None

        return await wait_until_async(wanted_view, 240, f"Serve to show {wanted}") or ServeView()

    await wait_for_view(status=None)
    with pytest.raises(ClusterRefusedError, match="token"):
        await rest(dashboard, "wrong" * 13).observe(HEAD, application="video")

    config = render.applications(pool(), 0)
    config["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    await serve.put(HEAD, config)
    await wait_for_view(status="RUNNING", attempt=0, target=2, running=2)

    async def scale(target: int) -> None:
        name = deployment_name("video")
        await serve.scale(HEAD, application="video", deployment=name, target=target)

    await scale(0)
    await wait_for_view(target=0, running=0)
    await scale(4)
    await wait_for_view(target=4, running=4)
    await serve.put(HEAD, config)  # deploying the same configuration again keeps the target
    assert (await wait_for_view(status="RUNNING")).target == 4
    with pytest.raises(ClusterRefusedError):
        await serve.scale(HEAD, application="nobody", deployment="Nobody", target=2)
