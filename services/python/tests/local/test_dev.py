"""`daybreakd dev`: one light process and a Valkey, that come back, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from testkit.system import System, request, try_request
from testkit.waiting import wait_until

LIGHT = """
import sys
from daybreak_server.entrypoints import gateway
from daybreak_server.local import dev, embedded_valkey, supervisor
from daybreak_server import wiring
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads import registry
settings = Settings.model_validate({"redis": {"url": "redis://127.0.0.1:1"}})
settings = settings.model_copy(update={"pools": dev.light_pools(settings)})
gateway.Gateway(settings)
wiring.build_rank(settings, "echo", on_broken=print)
registry.implementation(registry.spec("echo"))
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = sorted(loaded & {"torch", "ray", "numpy", "diffusers", "av"})
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def dev(systems: Callable[..., System]) -> System:
    system = systems("dev")
    system.ready(60)
    return system


def test_it_imports_neither_torch_nor_ray() -> None:
    """All that the process makes is made without a heavy import."""
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=120)


def test_an_echo_task_runs_through_http(dev: System) -> None:
    """Submit, wait, fetch the artifact."""
    task = dev.wait(dev.submit(message="hello", steps=3))
    assert task["artifacts"][0]["name"] == "echo.txt"


def test_the_fault_that_ends_a_process_is_refused(dev: System) -> None:
    """Gateway and groups share the process: a task cannot take it down."""
    with pytest.raises(OSError, match="422"):
        dev.submit(message="x", fail_at=1, fail_kind="exit")
    assert dev.process.poll() is None


def test_valkey_comes_back_on_the_same_port_with_the_same_data(dev: System) -> None:
    """kill -9 of the store: the task of before is still known, and new ones run."""
    task = dev.submit(message="before", steps=1)
    dev.wait(task)
    pid = dev.state()["pids"]["valkey"]
    port = (dev.folder / "valkey" / "port").read_text()
    # Appended at once, synced each second: what the server has been given survives its own death.
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: try_request(f"{dev.url}/v1/tasks/{task}"), 60, "the store to be back")
    assert request(f"{dev.url}/v1/tasks/{task}")["state"] == "succeeded"
    assert (dev.folder / "valkey" / "port").read_text() == port
    dev.wait(dev.submit(message="after", steps=1))


def test_a_second_one_in_the_same_folder_is_refused(dev: System, systems: Callable[..., System]) -> None:
    """One instance for one folder: the message names the process that holds it."""
    second = systems("dev", dev.folder)
    assert second.process.wait(60) == 1
    assert str(dev.process.pid) in second.output_text()


def test_a_hung_group_is_replaced(systems: Callable[..., System]) -> None:
    """A task that never comes back is a strike; another thread serves the pool from then on."""
    system = systems("dev", DAYBREAK_POOLS__ECHO__LEASE__STALL_S="1")
    system.ready(60)
    task = system.submit(message="h", steps=3, fail_at=2, fail_kind="hang", fail_attempts=1)
    assert system.wait(task)["strikes"] == 1


def test_sigterm_ends_all_of_it(dev: System) -> None:
    """It ends by itself with code 0; no process, no port is left."""
    url = dev.url
    dev.process.terminate()
    assert dev.process.wait(60) == 0
    assert not dev.remaining_processes()
    assert try_request(f"{url}/healthz") is None
    assert not (dev.folder / "up.json").exists()


def test_its_data_outlive_it_and_a_killed_one_leaves_no_process(
    dev: System, systems: Callable[..., System]
) -> None:
    """kill -9 of the whole: a watcher ends its Valkey. The next one in the folder has the earlier tasks."""
    again = systems("dev", dev.folder)
    again.ready(60)
    assert len(request(f"{again.url}/v1/tasks?pool=echo&limit=100")["data"]) >= 3
    assert again.remaining_processes()
    again.process.send_signal(signal.SIGKILL)
    again.process.wait(30)
    wait_until(lambda: not again.remaining_processes(), 30, "the watcher to end the rest")
