"""Tests of the table that ranks share in their Ray cluster.

The table is in Ray's own store, or in an actor if the installed Ray has no private functions for that store.
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

from testkit.ray_versions import make_ray, renamed

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PROGRAM = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(stream=sys.stderr)
import ray
ray.init(address="local", num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, namespace="serve",
         _temp_dir=sys.argv[1], log_to_driver=False, configure_logging=False)
from daybreak_server.adapters.ray import cluster
from daybreak_server.domain.causes import Cause

@ray.remote(num_cpus=0)
def another_process(gang):
    cluster.KvRendezvousStore(gang).put("host:1")
    cluster.record_failure("video", rank=1, cause=Cause(reason="ModelMissing", message="no model"))
    return [cluster.record_start_failure("video", rank=1) for _ in range(2)]

output = {"before": cluster.KvRendezvousStore("a").get(), "counts": ray.get(another_process.remote("a"))}
board = cluster.KvRendezvousStore("a")
output |= {"address": board.get(), "another": cluster.KvRendezvousStore("b").get()}
board.put("host:2")
output["over"] = board.get()
board.clear()
board.clear()
output["cleared"] = board.get()
cluster.record_failure("video", rank=0, cause=Cause(reason="ModelMissing", message="still none"))
failures = cluster.failures().items()
output["failures"] = {pool: (entry["rank"], entry["message"], entry["count"]) for pool, entry in failures}
thread = cluster.watch_draining(lambda: None)
thread.join(1.0)
output["watches"] = thread.is_alive()
Path(sys.argv[2]).write_text(json.dumps(output))  # Ray may write to the standard output
ray.shutdown()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path. Ray creates its sockets below it, and the path of a socket must be short."""
    folder_path = Path(tempfile.mkdtemp(prefix="dbr-"))
    yield folder_path
    shutil.rmtree(folder_path, ignore_errors=True)


def run(folder: Path, **variables: str) -> tuple[dict, str]:
    """Run the program. Returns its output and its log.

    Ray gives up if it does not start within 30 s, which can happen on a busy machine. The program is then run again.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DAYBREAK_", "RAY_"))}
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
    }
    output = folder / "output.json"
    for attempt in range(3):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder / str(attempt)), str(output)],
            check=False,
            env={**inherited, **quiet, **variables},
            capture_output=True,
            text=True,
        )
        if "timed out during startup" not in result.stderr:
            break
    assert result.returncode == 0, result.stderr
    return json.loads(output.read_text()), result.stderr


@pytest.mark.parametrize("private_names", ["present", "missing"])
def test_ranks_exchange_addresses_and_failures_with_and_without_rays_private_names(
    private_names: str, folder: Path, tmp_path: Path
) -> None:
    variables = {}
    if private_names == "missing":
        changes = [change for name in ("_internal_kv_put", "get_draining_nodes") for change in renamed(name)]
        variables["PYTHONPATH"] = str(make_ray(tmp_path / "ray", *changes))
    output, log = run(folder, **variables)
    assert output == {
        "before": None,
        "counts": [1, 2],
        "address": "host:1",
        "another": None,
        "over": "host:2",
        "cleared": None,
        "failures": {"video": [0, "still none", 2]},
        "watches": private_names == "present",
    }
    assert ("has no _internal_kv_put: an actor" in log) == (private_names == "missing")
    assert ("does not list its draining nodes" in log) == (private_names == "missing")
