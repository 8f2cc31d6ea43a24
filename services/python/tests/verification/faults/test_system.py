"""The whole-system faults' own rules: which cases are run, on which pools, and that the strain is real."""

from __future__ import annotations

import threading
import time

import pytest

from daybreak_server.settings.tree import Settings
from verification.faults.system.cases import CASES
from verification.faults.system.run import chosen, pools_for
from verification.faults.system.stress_workload import hold_the_lock


def test_without_names_the_quick_cases_are_run() -> None:
    """A rank, a stopped leader, the store and Serve's controller; all of them with `--long`."""
    assert [one.name for one in chosen([], long=False)] == [
        "follower",
        "stopped-leader",
        "valkey",
        "controller",
    ]
    assert chosen([], long=True) == list(CASES.values())


def test_a_case_can_be_named() -> None:
    """And one that there is not is refused."""
    assert [one.name for one in chosen(["gcs"], long=False)] == ["gcs"]
    with pytest.raises(SystemExit, match="no case nothing"):
        chosen(["nothing"], long=False)


def test_only_the_pools_that_are_needed_are_started() -> None:
    """Each is a valid pool of the product's settings."""
    pools = pools_for(chosen(["hang"], long=False))
    assert set(pools) == {"pair"}
    assert Settings.model_validate({"pools": pools_for(list(CASES.values()))}).pools["pair"].ranks == 2


def test_the_strain_holds_pythons_lock() -> None:
    """No other thread runs meanwhile."""
    seen: list[float] = []
    ending = threading.Event()

    def tick() -> None:
        while not ending.wait(0.005):
            seen.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    hold_the_lock(0.3)
    ended = time.monotonic()
    ending.set()
    thread.join()
    assert ended - began >= 0.3
    assert not [at for at in seen if began + 0.05 < at < ended - 0.05]
