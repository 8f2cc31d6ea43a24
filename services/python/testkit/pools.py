"""A pool on a real Valkey, with the tick but without HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daybreak_server import wiring
from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import EventRecord, NewTask, State, TaskRecord
from daybreak_server.observability.changes import log_change
from daybreak_server.ports.blobs import Blobs
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server
from testkit.waiting import wait_until

WAIT_S = 60.0


class Pool:
    """The pool `echo`. A thread with its own event loop runs the store and the tick."""

    def __init__(self, settings: Settings, *, tick_s: float = 0.05) -> None:
        self.settings = settings
        self.name = "echo"
        self._tick_s = tick_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        endpoint = wiring.redis_endpoint(settings)
        self.store = RedisStore(endpoint, on_change=log_change)
        self.log = RedisEvents(endpoint)
        self.ticking = True
        self._stopping = False
        self._ticker = asyncio.run_coroutine_threadsafe(self._tick(), self._loop)

    @property
    def blobs(self) -> Blobs:
        return wiring.build_blobs(self.settings)

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def submit(self, *, tenant: str = "default", **options: Any) -> TaskId:
        task_options = {
            name: options.pop(name) for name in ("max_strikes", "run_within_ms") if name in options
        }
        task = NewTask(
            id=new_task_id(self.name),
            pool=self.name,
            tenant=tenant,
            input_json=json.dumps(options),
            **task_options,
        )
        (result,) = self.call(self.store.submit([task]))
        if isinstance(result, Exception):
            raise result
        return task.id

    def get(self, task: TaskId) -> TaskRecord:
        record = self.call(self.store.get(task))
        assert record is not None
        return record

    def cancel(self, task: TaskId) -> None:
        self.call(self.store.cancel(task))

    def events(self, task: TaskId) -> list[EventRecord]:
        return list(self.call(self.log.read(task, limit=1000)).events)

    def types(self, task: TaskId) -> list[str]:
        return [event.type for event in self.events(task)]

    def view(self) -> PoolView:
        return self.call(self.store.pool(self.name))

    def wait(self, task: TaskId, state: State = State.SUCCEEDED) -> TaskRecord:
        """Wait until the task has ended, and assert that it ended as ``state``."""
        record = wait_until(lambda: self._if(task, lambda r: r.state.terminal), WAIT_S, f"the end of {task}")
        assert record.state is state, (record, self.events(task))
        return record

    def wait_step(self, task: TaskId, step: int = 1) -> TaskRecord:
        """Wait until the task has completed ``step`` steps."""
        what = f"step {step} of {task}"
        return wait_until(lambda: self._if(task, lambda r: (r.step or 0) >= step), WAIT_S, what)

    def wait_for(self, task: TaskId, check: Callable[[TaskRecord], bool], what: str) -> TaskRecord:
        return wait_until(lambda: self._if(task, check), WAIT_S, what)

    def output(self, task: TaskId, name: str = "echo.txt") -> bytes:
        (artifact,) = [artifact for artifact in self.get(task).artifacts if artifact.name == name]
        with self.blobs.open(artifact.key) as file:
            return file.read()

    def close(self) -> None:
        self._stopping = True
        self._ticker.result(60)
        self.call(self.store.close())
        self.call(self.log.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _if(self, task: TaskId, check: Callable[[TaskRecord], bool]) -> TaskRecord | None:
        record = self.get(task)
        return record if check(record) else None

    async def _tick(self) -> None:
        while not self._stopping:
            if self.ticking:
                try:
                    await self.store.tick(self.name)
                except Exception as exc:  # an outage that the test caused
                    print("tick:", exc)
            await asyncio.sleep(self._tick_s)


def make_settings(
    server: Server, folder: Path, *, redis: Mapping[str, Any] | None = None, **pool: Any
) -> Settings:
    """Settings with one pool, `echo`. ``redis`` and ``pool`` add further settings.

    A lease is long enough that no group loses its task because the machine is busy. Tests that wait for the end of a
    lease set a shorter one.
    """
    lease = {"lease_s": 15.0, "stall_s": 20.0, **pool.pop("lease", {})}
    return Settings.model_validate(
        {
            "data_dir": str(folder),
            "redis": {"url": server.url, **(redis or {})},
            "pools": {"echo": {"progress_s": 0.05, "drain_s": 0.0, "lease": lease, **pool}},
        }
    )
