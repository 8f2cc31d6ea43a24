"""Tests of the program that runs fault tests on a whole system: the cases and pools, and the stress workload."""

from __future__ import annotations

import threading
import time

import pytest

from daybreak_server.settings.tree import Settings
from verification.faults.system.cases import CASES
from verification.faults.system.run import chosen, pools_for
from verification.faults.system.stress_workload import hold_the_lock


def test_without_names_the_quick_cases_run() -> None:
    """The quick cases kill a rank, the store and Serve's controller, and suspend a leader. `--long` runs all cases."""
    assert [case.name for case in chosen([], long=False)] == [
        "follower",
        "stopped-leader",
        "valkey",
        "controller",
    ]
    assert chosen([], long=True) == list(CASES.values())


def test_cases_can_be_chosen_by_name() -> None:
    """An unknown name is an error."""
    assert [case.name for case in chosen(["gcs"], long=False)] == ["gcs"]
    with pytest.raises(SystemExit, match="unknown case: nothing"):
        chosen(["nothing"], long=False)


def test_only_the_pools_of_the_chosen_cases_start() -> None:
    """The pools of all cases are valid settings."""
    pools = pools_for(chosen(["hang"], long=False))
    assert set(pools) == {"pair"}
    assert Settings.model_validate({"pools": pools_for(list(CASES.values()))}).pools["pair"].ranks == 2


def test_the_stress_workload_holds_the_gil() -> None:
    """While the workload holds the GIL, no other thread runs."""
    ticks: list[float] = []
    stopping = threading.Event()

    def tick() -> None:
        while not stopping.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    hold_the_lock(0.3)
    ended = time.monotonic()
    stopping.set()
    thread.join()
    assert ended - began >= 0.3
    assert not [at for at in ticks if began + 0.05 < at < ended - 0.05]
