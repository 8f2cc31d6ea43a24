"""How long the oldest waiting task has waited, by priority, as metrics and the pool's view show it."""

from __future__ import annotations

from daybreak_server.domain.tasks import Priority, Released
from testkit.store_cases import start, submit
from testkit.store_driver import Driver


def test_the_queue_is_shown_by_priority_with_its_oldest_wait(driver: Driver) -> None:
    """The oldest wait of a priority is the wait of its oldest task. A delayed task does not wait."""
    submit(driver, priority=Priority.LOW, tenant="alice")
    driver.pass_time(4_000)
    submit(driver, priority=Priority.LOW, tenant="bob")
    submit(driver, priority=Priority.HIGH, tenant="bob")
    submit(driver, start_at_ms=driver.now + 60_000)
    driver.pass_time(1_000)
    queue = driver.totals().queue
    assert {name: (depth.tasks, depth.oldest_wait_s) for name, depth in queue.items()} == {
        "high": (1, 1.0),
        "normal": (0, 0.0),
        "low": (2, 5.0),
    }


def test_the_oldest_wait_of_a_released_task_begins_with_its_release(driver: Driver) -> None:
    """The time before the release does not count."""
    claim = start(driver)
    driver.pass_time(8_000)
    driver.settle(claim.lease, Released())
    driver.pass_time(1_000)
    assert driver.totals().queue["normal"].oldest_wait_s == 1.0


def oldest_waits(driver: Driver) -> dict[str, float]:
    """The oldest wait of each priority. The pool's view shows the longest of them."""
    waits = {name: depth.oldest_wait_s for name, depth in driver.totals().queue.items()}
    assert (driver.view().oldest_wait_s or 0.0) == max(waits.values())
    return waits


def test_a_task_that_returns_to_the_front_does_not_hide_the_oldest_wait(driver: Driver) -> None:
    """A released task takes its old place again, ahead of tasks that have now waited longer."""
    released = start(driver)
    submit(driver)
    submit(driver, priority=Priority.LOW)
    driver.pass_time(3_000)
    driver.settle(released.lease, Released())
    assert oldest_waits(driver) == {"high": 0.0, "normal": 3.0, "low": 3.0}
    again = driver.claim()
    assert again is not None
    assert again.lease.task == released.lease.task
    driver.pass_time(1_000)
    assert oldest_waits(driver) == {"high": 0.0, "normal": 4.0, "low": 4.0}


def test_a_promoted_task_does_not_hide_the_oldest_wait(driver: Driver) -> None:
    """The task's place in the queue follows from the time of its submit, but its wait begins at its start time."""
    submit(driver, start_at_ms=driver.now + 4_000)
    submit(driver)
    driver.pass_time(5_000)
    assert oldest_waits(driver) == {"high": 0.0, "normal": 5.0, "low": 0.0}


def test_a_due_task_waits_even_if_no_tick_promotes_it(driver: Driver) -> None:
    """Without ticks, no delayed task is promoted. The oldest wait must count a due task all the same."""
    driver.client.hset(driver.keys.single("meta"), "wake_ms", 10_000)
    submit(driver, priority=Priority.LOW, start_at_ms=driver.now + 4_000)
    assert driver.view().oldest_wait_s is None
    driver.now += 6_000
    assert oldest_waits(driver) == {"high": 0.0, "normal": 0.0, "low": 2.0}


def test_a_task_that_an_earlier_version_queued_counts_for_its_priority(driver: Driver) -> None:
    """In `live`, earlier versions used only the time as the score of a task. The score did not show the priority."""
    task = submit(driver, priority=Priority.LOW)
    driver.client.zadd(driver.keys.single("live"), {task: driver.now})
    driver.pass_time(2_000)
    assert oldest_waits(driver) == {"high": 0.0, "normal": 0.0, "low": 2.0}
