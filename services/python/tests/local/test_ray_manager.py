"""The API and the manager on Ray: a new deployment of the API loses no model. The manager leads, comes back when it
is killed, and is replaced when the settings change. The manager always runs on the head's node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daybreak_server.adapters.ray.head_actor import head_share
from testkit.valkey import Server

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PROGRAM = """
import asyncio, contextlib, json, os, signal, subprocess, sys, urllib.request
from pathlib import Path
import ray
from ray import serve
ray.init(address="local", num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, namespace="serve",
         _temp_dir=sys.argv[1], log_to_driver=False, configure_logging=False)
from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.entrypoints.ray_manager import ensure_manager
from daybreak_server.entrypoints.ray_serve import api_app
from daybreak_server.settings.tree import Settings
from daybreak_server.local.free_ports import free_port
from testkit.waiting import wait_until

def settings(**more):
    return Settings.model_validate({"redis": {"url": sys.argv[3]}, "pools": {"echo": {"workload": "echo"}}, **more})

def health():
    try:
        return ray.get(ray.get_actor("manager").health.remote(), timeout=60)
    except (ray.exceptions.RayActorError, ValueError):
        return {}

async def change(act):
    registry = RedisRegistry(sys.argv[3])
    try:
        return await act(registry)
    finally:
        await registry.close()

def answer(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)

def answers():
    with contextlib.suppress(OSError):
        return answer("/v1/models")

def deploy():
    serve.run(api_app(settings()), name="api", route_prefix="/")
    return wait_until(answers, 60, "the API")

ray_command = str(Path(sys.executable).with_name("ray"))
node = subprocess.Popen(
    [ray_command, "start", "--block", "--num-cpus=1", "--object-store-memory=80000000",
     "--address=" + ray.get_runtime_context().gcs_address], stdout=subprocess.DEVNULL)
wait_until(lambda: len(ray.nodes()) == 2, 60, "a second node")
head = ray.get_runtime_context().get_node_id()
port = free_port()
url = f"http://127.0.0.1:{port}"
serve.start(http_options={"host": "127.0.0.1", "port": port})
deploy()
wait_until(lambda: health().get("leads"), 60, "the actor to lead")
first = health()
answer("/v1/models/register", {"alias": "small", "source": "s", "engine": "e", "min_replicas": 1})
serve.delete("api")
deployed_again = deploy()
wanted = lambda: dict(asyncio.run(change(lambda registry: registry.view())).plan.wanted)
wait_until(lambda: wanted() == {"small": 1}, 60, "the model to be wanted")
os.kill(first["pid"], signal.SIGKILL)
wait_until(lambda: health().get("pid", first["pid"]) != first["pid"], 120, "the actor to come back")
wait_until(lambda: health().get("leads"), 60, "it to lead again")
again = health()
ensure_manager(settings())
same = health()
output = {"deployed_again": deployed_again, "first": first, "again": again, "wanted": wanted()}
output["same"] = same["pid"] == again["pid"]
ensure_manager(settings(workers={"idle_s": 7}))
wait_until(lambda: health().get("settings", again["settings"]) != again["settings"], 120, "another actor")
wait_until(lambda: health().get("leads"), 60, "the other one to lead")
output["replaced"] = health()["pid"] != again["pid"]
output["on_the_head"] = [of["node"] == head for of in (first, again, health())]
ray.kill(ray.get_actor("manager"))
holder = lambda: asyncio.run(change(lambda registry: registry.view())).manager
wait_until(lambda: holder() not in (None, "", "ray/manager"), 60, "the API's own manager to take over")
ensure_manager(settings())
wait_until(lambda: holder() == "ray/manager", 120, "the actor to take over again")
Path(sys.argv[2]).write_text(json.dumps(output))  # Ray may write to the standard output
node.terminate()
node.wait(60)  # Ray waits 30 s for an actor that does not leave
ray.shutdown()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path, because Ray creates its sockets below it."""
    folder_path = Path(tempfile.mkdtemp(prefix="dbr-"))
    yield folder_path
    shutil.rmtree(folder_path, ignore_errors=True)


def test_the_api_and_the_manager_are_replaced_without_a_loss(folder: Path, valkey: Server) -> None:
    output = folder / "output.json"
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("DAYBREAK_", "RAY_"))}
    environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "r"), str(output), valkey.url],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(output.read_text())
    assert [model["id"] for model in seen["deployed_again"]["data"]] == ["small"]
    assert (seen["first"]["holder"], seen["first"]["leads"]) == ("ray/manager", True)
    assert seen["again"]["pid"] != seen["first"]["pid"]
    assert seen["again"]["models"] == 1
    assert seen["wanted"] == {"small": 1}
    assert seen["same"], "the same settings keep the actor"
    assert seen["replaced"], "other settings replace the actor"
    assert all(seen["on_the_head"]), (
        "the actor runs on the head's node, so it keeps no other node from leaving"
    )


def test_without_a_node_that_is_marked_as_the_head_ray_chooses_the_node() -> None:
    head = {"Alive": True, "Resources": {"CPU": 1.0, "node:__internal_head__": 1.0}}
    others = [{"Alive": True, "Resources": {"CPU": 1.0}}, {**head, "Alive": False}]
    assert head_share(others) == {}
    assert head_share([*others, head]) == {"node:__internal_head__": 0.001}
