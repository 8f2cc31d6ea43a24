"""Tests ``daybreakd dev``: it runs one light process and a Valkey, replaces what fails, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.system import System, request, try_request
from testkit.waiting import wait_until

LIGHT = """
import sys
from daybreak_server.entrypoints import gateway
from daybreak_server.local import dev, embedded_valkey, supervisor
from daybreak_server import wiring
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads import discovery
settings = Settings.model_validate({"redis": {"url": "redis://127.0.0.1:1"}})
settings = settings.model_copy(update={"pools": dev.light_pools(settings)})
gateway.Gateway(settings)
wiring.build_rank(settings, "echo", on_broken=print)
discovery.implementation(discovery.spec("echo"))
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = sorted(loaded & {"torch", "ray", "numpy", "diffusers", "av"})
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def dev(systems: Callable[..., System]) -> System:
    system = systems("dev")
    system.ready(60)
    return system


def test_dev_imports_neither_torch_nor_ray() -> None:
    """The process builds its gateway, ranks and workloads without a large import."""
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=120)


def test_an_echo_task_submitted_over_http_succeeds(dev: System) -> None:
    """The succeeded task has its artifact."""
    task = dev.wait(dev.submit(message="hello", steps=3))
    assert task["artifacts"][0]["name"] == "echo.txt"


def test_a_fault_that_would_end_the_process_is_refused(dev: System) -> None:
    """Gateway and groups share one process, so a task must not end it."""
    with pytest.raises(OSError, match="422"):
        dev.submit(message="x", fail_at=1, fail_kind="exit")
    assert dev.process.poll() is None


def test_a_killed_valkey_restarts_on_its_port_with_its_data(dev: System) -> None:
    """After a kill -9 of the store, the earlier task still exists and new tasks run."""
    task = dev.submit(message="before", steps=1)
    dev.wait(task)
    port = (dev.folder / "valkey" / "port").read_text()
    dev.kill_valkey()
    wait_until(lambda: try_request(f"{dev.url}/v1/tasks/{task}"), 60, "the store to restart")
    assert request(f"{dev.url}/v1/tasks/{task}")["state"] == "succeeded"
    assert (dev.folder / "valkey" / "port").read_text() == port
    dev.wait(dev.submit(message="after", steps=1))


def test_a_second_instance_in_the_same_folder_is_refused(dev: System, systems: Callable[..., System]) -> None:
    """A folder has at most one instance. The message names the process that uses it."""
    second = systems("dev", dev.folder)
    assert second.process.wait(60) == 1
    assert str(dev.process.pid) in second.output_text()


def test_a_hung_group_is_replaced(systems: Callable[..., System]) -> None:
    """A task that hangs gets a strike, and another thread takes over the pool."""
    system = systems("dev", DAYBREAK_POOLS__ECHO__LEASE__STALL_S="1")
    system.ready(60)
    task = system.submit(message="h", steps=3, fail_at=2, fail_kind="hang", fail_attempts=1)
    assert system.wait(task)["strikes"] == 1


def test_the_policy_of_a_pool_changes_without_the_url_of_the_embedded_store(
    systems: Callable[..., System], tmp_path: Path
) -> None:
    """`daybreakd routing` finds the store of the instance that has its data in the same folder."""
    pool = {"DAYBREAK_POOLS__ANSWERS__WORKLOAD": "echo-serve"}
    system = systems("dev", **pool)
    system.ready(60)

    def routing(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("daybreakd")), "routing", "answers", "round_robin"],
            env=os.environ | pool | {"DAYBREAK_DATA_DIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    changed = routing(system.folder)
    assert changed.stdout == "answers: round_robin, set with `daybreakd routing`\n", changed.stderr
    missed = routing(tmp_path / "elsewhere")
    assert (missed.returncode, "no instance has run in" in missed.stderr) == (2, True)


def test_sigterm_ends_every_process(dev: System) -> None:
    """The process exits with code 0. No process remains, and the port is closed."""
    url = dev.url
    dev.process.terminate()
    assert dev.process.wait(60) == 0
    assert not dev.remaining_processes()
    assert try_request(f"{url}/healthz") is None
    assert not (dev.folder / "up.json").exists()


def test_the_next_instance_has_the_earlier_tasks_and_a_killed_one_leaves_no_process(
    dev: System, systems: Callable[..., System]
) -> None:
    """After a kill -9 of the instance's process, the reaper ends Valkey."""
    following = systems("dev", dev.folder)
    following.ready(60)
    assert len(request(f"{following.url}/v1/tasks?pool=echo&limit=100")["data"]) >= 3
    assert following.remaining_processes()
    following.process.send_signal(signal.SIGKILL)
    following.process.wait(30)
    wait_until(lambda: not following.remaining_processes(), 30, "the reaper to end the rest")
