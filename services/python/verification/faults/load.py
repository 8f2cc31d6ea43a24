"""The external clients: they submit, get, cancel, follow, list and download through the SDK, and record every call.

All clients run in one thread with its own event loop. Other threads call the methods of :class:`Load`, and run its
coroutines through ``call`` and ``spawn``. Each tenant has two clients: the one in ``clients`` may lose responses and
streams, the one in ``steady_clients`` does not. With ``relay``, each pool has a relay, which records every event.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from daybreak.aio import AsyncClient
from daybreak.core.retry import Retry, changed_nothing
from daybreak.errors import ApiError, DaybreakError
from daybreak.event_relay import Delivery, Relay, RelayGapError
from daybreak.wire import Event, Task
from daybreak_server.api.asyncio_tasks import cancel_and_wait
from verification.faults.client_transport import BalancedTransport
from verification.faults.cluster import FaultCluster
from verification.faults.history import History
from verification.faults.schedule import TENANTS, Submission

PATIENT_RETRY = Retry(attempts=600, first_s=0.05, max_s=0.5, stream_s=600.0)
"""Retries for a long time, so that no test fails because its machine starts processes slowly."""
RELAY_GROUP = "fault-tests"


def event_facts(event: Event) -> dict[str, Any]:
    """What the history records of an event."""
    return {"id": event.id, "type": str(event.type), "attempt": event.attempt, "data": event.data}


def task_facts(task: Task) -> dict[str, Any]:
    """What the history records of a task."""
    return task.model_dump(mode="json", exclude_none=True, exclude={"links"})


async def unended(client: AsyncClient, pool: str) -> list[Task]:
    """Tasks of a pool that have not ended, as one tenant sees them.

    Listing by state needs two requests. A task that moves from ``running`` back to ``queued`` between them is in
    neither response. So only an unfiltered list can show that every task has ended.
    """
    listed = [
        task
        for state in ("queued", "running")
        async for task in client.list(pool=pool, state=state, limit=100)
    ]
    return listed or [task async for task in client.list(pool=pool, limit=100) if not task.state.terminal]


class Load:
    """Clients in a thread with its own event loop, as a context manager."""

    def __init__(
        self,
        cluster: FaultCluster,
        *,
        seed: int = 0,
        cut: float = 0.0,
        relay: bool = True,
        tenants: Sequence[str] = TENANTS,
    ) -> None:
        self.cluster = cluster
        self.history: History = cluster.history
        self.tenants = tuple(tenants)
        self.has_relay = relay
        self._seed = seed
        self._draw = random.Random(f"{seed}/load")
        self.known: dict[str, str] = {}
        """The tenant of every task whose id a client has received."""
        self._readers = 0
        self._running: set[asyncio.Task[Any]] = set()
        self._relays: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clients", daemon=True)
        self.networks = {
            name: BalancedTransport(cluster.urls, seed=seed + n, cut=cut)
            for n, name in enumerate(self.tenants)
        }
        self.plain = {
            name: BalancedTransport(cluster.urls, seed=seed - n - 1) for n, name in enumerate(self.tenants)
        }
        self.clients: dict[str, AsyncClient] = {}
        """Clients whose responses get lost and whose streams are cut, by tenant."""
        self.steady_clients: dict[str, AsyncClient] = {}
        """Clients without these faults, by tenant."""
        self._files = Path(tempfile.mkdtemp(prefix="files-", dir=cluster.folder))

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ── called from other threads ────────────────────────────────────────────────────────────────────────

    def call(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float = 600.0) -> Any:
        """Run a coroutine in the clients' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the clients' loop in the background."""
        asyncio.run_coroutine_threadsafe(self._spawn(coroutine), self._loop).result(30)

    def play(self, submissions: Sequence[Submission]) -> None:
        """Start the submissions in the background, each at its time, counted from now."""
        self.spawn(self._play(submissions))

    def submit(self, pool: str, *, tenant: str | None = None, readers: int = 0, **fields: Any) -> str:
        """Submit a task and return its id. ``fields``: the three options named below (if given), and the input."""
        options = {
            name: fields.pop(name) for name in ("max_strikes", "run_within_s", "priority") if name in fields
        }
        number = 1_000_000 + self.history.counts.get("submit.invoke", 0)
        submission = Submission(
            at_s=0,
            number=number,
            pool=pool,
            tenant=tenant or self.tenants[0],
            input=fields,
            readers=readers,
            **options,
        )
        task = self.call(self.submit_async(submission))
        if task is None:
            raise RuntimeError(
                f"the submit with key {submission.key} was not accepted; see {self.history.path}"
            )
        return str(task)

    def busy(self) -> int:
        """The number of clients whose work still runs, not counting relays."""
        return len(self._running)

    def wait_clients(self, timeout_s: float) -> bool:
        """Wait until every client has ended, or the history has got no new line for ``timeout_s``.

        :returns: whether all have ended.
        """
        before, changed_at = self.history.lines, time.monotonic()
        while self._running and time.monotonic() - changed_at < timeout_s:
            if self.history.lines != before:
                before, changed_at = self.history.lines, time.monotonic()
            time.sleep(0.05)
        return not self._running

    def settle_down(self, timeout_s: float = 60.0) -> list[str]:
        """Wait until the public API shows every task as ended, or until nothing has changed for ``timeout_s``.

        :returns: the ids of the tasks that have not ended.
        """
        return list(self.call(self._settle_down(timeout_s), 3600))

    # ── the clients ──────────────────────────────────────────────────────────────────────────────────────

    async def _open(self) -> None:
        for tenant in self.tenants:
            for clients, networks in ((self.clients, self.networks), (self.steady_clients, self.plain)):
                clients[tenant] = AsyncClient(
                    self.cluster.urls[0],
                    headers={"Daybreak-Tenant": tenant},
                    retry=PATIENT_RETRY,
                    transport=networks[tenant],
                )
        if self.has_relay:
            for pool in self.cluster.options.pools:
                self._relays.add(asyncio.create_task(self._run_relay(pool.name)))

    async def _close(self) -> None:
        await cancel_and_wait(*self._running, *self._relays)
        for client in (*self.clients.values(), *self.steady_clients.values()):
            await client.close()

    async def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.history.note("client", kind="failed", error=f"{type(exc).__name__}: {exc}")

    async def _play(self, submissions: Sequence[Submission]) -> None:
        began = self._loop.time()
        for submission in submissions:
            await asyncio.sleep(max(0.0, began + submission.at_s - self._loop.time()))
            await self._spawn(self.submit_async(submission))
            if submission.number % 40 == 39:
                await self._spawn(self._list(submission.tenant, submission.pool))
            if submission.number % 4 == 3 and self.known:
                await self._spawn(self.get(self._draw.choice(list(self.known))))

    async def submit_async(self, submission: Submission) -> str | None:
        """Submit ``sends`` times, start the readers and plan the cancellation. :returns: the task's id, or ``None``."""
        if submission.lose_reply:
            self.networks[submission.tenant].lose.add(submission.key)
        ids = await asyncio.gather(*(self._send(submission) for _ in range(submission.sends)))
        task = next((task for task in ids if task is not None), None)
        if task is None:
            return None
        for number in range(submission.readers):
            await self._spawn(self.read(task, submission.tenant, cut=number != 0))
        if submission.cancel_after_s is not None:
            await self._spawn(self._cancel_later(task, submission.cancel_after_s))
        return task

    async def _send(self, submission: Submission) -> str | None:
        call = self.history.invoke(
            "submit",
            key=submission.key,
            pool=submission.pool,
            tenant=submission.tenant,
            input=submission.input,
            max_strikes=submission.max_strikes,
        )
        try:
            task = await self.clients[submission.tenant].submit(
                submission.pool,
                submission.input,
                priority=submission.priority,
                run_within_s=submission.run_within_s,
                start_within_s=submission.start_within_s,
                max_strikes=submission.max_strikes,
                metadata={"key": submission.key},
                idempotency_key=submission.key,
            )
        except DaybreakError as exc:
            self._failed(call, "submit", exc)
            return None
        self.known[task.id] = submission.tenant
        self.history.done(call, "submit", "ok", task=task.id, state=str(task.state))
        return task.id

    async def cancel(self, task: str) -> None:
        """Cancel a task."""
        call = self.history.invoke("cancel", task=task)
        try:
            record = await self.clients[self.known[task]].cancel(task)
        except DaybreakError as exc:
            self._failed(call, "cancel", exc)
        else:
            self.history.done(
                call,
                "cancel",
                "ok",
                state=str(record.state),
                cancel_requested=record.cancel_requested,
                task=task,
            )

    async def _cancel_later(self, task: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.cancel(task)

    async def get(self, task: str) -> Task | None:
        """Get a task."""
        call = self.history.invoke("get", task=task)
        try:
            record = await self.clients[self.known[task]].get(task)
        except DaybreakError as exc:
            self._failed(call, "get", exc)
            return None
        progress = record.progress
        self.history.done(
            call,
            "get",
            "ok",
            task=task,
            state=str(record.state),
            attempt=record.attempt,
            strikes=record.strikes,
            step=progress.step if progress else None,
        )
        return record

    async def _list(self, tenant: str, pool: str) -> None:
        call = self.history.invoke("list", tenant=tenant, pool=pool)
        try:
            tasks = [task async for task in self.clients[tenant].list(pool=pool)]
        except DaybreakError as exc:
            self._failed(call, "list", exc)
        else:
            states = {task.id: str(task.state) for task in tasks}
            self.history.done(call, "list", "ok", tenant=tenant, pool=pool, tasks=states, count=len(tasks))

    async def read(self, task: str, tenant: str, *, cut: bool = True, hops: bool = True) -> str | None:
        """Follow a task's events to the end and return the last event's type. ``hops``: reconnect at random events."""
        self._readers += 1
        reader, last_event, after = f"r{self._readers}", None, None
        client = (self.clients if cut else self.steady_clients)[tenant]
        self.history.note("reader", kind="begin", reader=reader, task=task)
        while True:
            disconnected = False
            async with aclosing(client.events(task, after=after)) as events:
                async for event in events:
                    self.history.note("event", reader=reader, task=task, **event_facts(event))
                    after = event.id or after
                    last_event = event if event.id else last_event
                    if hops and event.id and not event.type.terminal and self._draw.random() < 0.03:
                        disconnected = True
                        break
            if not disconnected:
                break
        self.history.note("reader", kind="end", reader=reader, task=task)
        if last_event is not None and last_event.type == "succeeded" and self._draw.random() < 0.3:
            await self.download(task, tenant, [artifact["name"] for artifact in last_event.data["artifacts"]])
        return str(last_event.type) if last_event is not None else None

    async def download(self, task: str, tenant: str, names: Sequence[str]) -> None:
        """Download artifacts and record their size and SHA-256."""
        for name in names:
            call = self.history.invoke("download", task=task, name=name)
            path = self._files / f"{task}-{call}"
            try:
                await self.steady_clients[tenant].download(task, name, path)
            except (DaybreakError, OSError) as exc:
                self._failed(call, "download", exc)
                continue
            data = path.read_bytes()
            path.unlink()
            digest = hashlib.sha256(data).hexdigest()
            self.history.done(call, "download", "ok", task=task, name=name, sha256=digest, size=len(data))

    async def _run_relay(self, pool: str) -> None:
        """Act as a control plane: receive every event of a pool at least once."""
        unacked: list[Delivery] = []
        async with Relay(
            self.cluster.redis_url, pool=pool, group=RELAY_GROUP, consumer="fault-tests-0"
        ) as relay:
            acking = asyncio.create_task(self._ack(relay, unacked))
            try:
                while True:
                    try:
                        async for delivery in relay:
                            event = delivery.event
                            facts = {"again": delivery.redelivered, **event_facts(event)}
                            self.history.note("relay", pool=pool, task=event.task, **facts)
                            unacked.append(delivery)
                    except RelayGapError as exc:
                        self.history.note("relay", kind="gap", pool=pool, error=str(exc))
            except Exception as exc:
                self.history.note("client", kind="failed", error=f"relay: {type(exc).__name__}: {exc}")
                raise
            finally:
                acking.cancel()

    async def _ack(self, relay: Relay, unacked: list[Delivery]) -> None:
        while True:
            await asyncio.sleep(0.2)
            batch, unacked[:] = list(unacked), []
            if batch:
                await relay.ack(*batch)

    def _failed(self, call: int, op: str, exc: Exception) -> None:
        nothing = isinstance(exc, DaybreakError) and changed_nothing(exc)
        refused = isinstance(exc, ApiError) and exc.status is not None and 400 <= exc.status < 500
        code = getattr(exc, "code", None)
        self.history.done(
            call,
            op,
            "refused" if nothing or refused else "unknown",
            error=f"{type(exc).__name__}: {exc}",
            code=code,
        )

    async def _settle_down(self, timeout_s: float) -> list[str]:
        """``timeout_s`` counts from the last change, because a task is stuck only when nothing changes."""
        before: set[str] = set()
        changed_at = self._loop.time()
        while True:
            unended_tasks: dict[str, str] = {}
            for tenant in self.tenants:
                for pool in self.cluster.options.pools:
                    for task in await unended(self.steady_clients[tenant], pool.name):
                        progress = task.progress
                        unended_tasks[task.id] = (
                            f"{task.id} {task.state} {task.attempt} {progress and progress.step}"
                        )
            now = self._loop.time()
            if set(unended_tasks.values()) != before:
                before, changed_at = set(unended_tasks.values()), now
            if not unended_tasks or now - changed_at > timeout_s:
                return sorted(unended_tasks)
            await asyncio.sleep(0.3)
