"""Tasks and outcomes that the store's tests share."""

from __future__ import annotations

from typing import Any

from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import ArtifactRef, Claim, Failed, Finished, NewTask
from daybreak_server.ports.tasks import Submitted
from testkit.store_driver import Driver

VIDEO = ArtifactRef(name="v.mp4", key="t/1.a/v.mp4", content_type="video/mp4", size_bytes=9, sha256="ab")
DONE = Finished(artifacts=(VIDEO,))
OOPS = Failed(code="oops", message="it broke")
FATAL = Failed(code="bad", message="never", permanent=True)


def new(**fields: Any) -> NewTask:
    """A task for pool ``video``. ``fields`` override its fields."""
    return NewTask(
        **{"id": new_task_id("video"), "pool": "video", "tenant": "t", "input_json": "{}", **fields}
    )


def submit(driver: Driver, **fields: Any) -> str:
    """Submit a task with these fields, which the store must accept. :returns: the task's id."""
    submitted = driver.submit(new(**fields))
    assert isinstance(submitted, Submitted)
    return submitted.record.id


def start(driver: Driver, **fields: Any) -> Claim:
    """Submit a task, and claim it for group ``g``."""
    task = submit(driver, **fields)
    driver.register("g")
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == task
    return claim


def dump(driver: Driver) -> dict[bytes, bytes | None]:
    """The content of every key, so that a test can show that nothing has changed."""
    return {key: driver.client.dump(key) for key in driver.client.scan_iter()}
