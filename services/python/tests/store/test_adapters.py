"""The adapters that the API and the gateways use: the store, the event log, and their errors while Redis is down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace

import pytest

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.key_names import FAMILIES, SINGLE, Keys
from daybreak_server.adapters.redis.lua.group import GROUPS_MAX
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.server_facts import facts
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.changes import Change
from daybreak_server.domain.ids import TaskId, new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolReport
from daybreak_server.domain.tasks import EventDraft, EventRecord, Failed, Finished, NewTask, Priority, State
from daybreak_server.local.free_ports import free_port
from daybreak_server.ports.store_errors import ConflictError, EventsTrimmedError, StoreUnavailableError
from daybreak_server.ports.tasks import Submitted
from testkit.valkey import Server
from testkit.waiting import wait_until_async


def task(**fields: object) -> NewTask:
    values = {"id": new_task_id("video"), "pool": "video", "tenant": "t", "input_json": "{}", **fields}
    return NewTask(**values)  # type: ignore[arg-type]


def group(state: GroupState = GroupState.IDLE, **fields: object) -> GroupRecord:
    return GroupRecord(id=new_group_id(), state=state, **fields)  # type: ignore[arg-type]


async def test_pages_list_every_task_once(server: Server) -> None:
    """The pages list each task of a tenant once, in either order, with and without a filter."""
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    tasks = [task() for _ in range(25)]
    await store.submit([*tasks, task(tenant="z-other")])
    queue.claim(group(), wait_s=1)
    ids = sorted(new.id for new in tasks)
    for newest_first in (True, False):
        seen: list[TaskId] = []
        after: TaskId | None = None
        while True:
            page = await store.list("video", "t", after=after, limit=10, newest_first=newest_first)
            seen += [record.id for record in page.records]
            after = page.next
            if after is None:
                break
        assert seen == (ids[::-1] if newest_first else ids)
    running = await store.list("video", "t", states=frozenset({State.RUNNING}))
    assert [record.state for record in running.records] == [State.RUNNING]
    assert (await store.list("video", "nobody")).records == ()
    queue.close()
    await store.close()


async def test_a_filtered_page_may_be_empty_although_more_pages_follow(server: Server) -> None:
    """The store examines at most 1,000 tasks for a filtered page. The page says where the next page begins."""
    store = RedisStore(server.url)
    tasks = [task() for _ in range(1050)]
    for start in range(0, 1050, 100):
        await store.submit(tasks[start : start + 100])
    oldest = min(new.id for new in tasks)
    await store.cancel(oldest)
    first = await store.list("video", "t", states=frozenset({State.CANCELLED}))
    assert (first.records, first.next is None) == ((), False)
    second = await store.list("video", "t", states=frozenset({State.CANCELLED}), after=first.next)
    assert [record.id for record in second.records] == [oldest]
    assert second.next is None
    await store.close()


async def test_a_pool_view_shows_every_group(server: Server) -> None:
    """If the view left a group out, the operator would think that the group's hosts are unused."""
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    await store.submit([task()])
    groups = [group(hosts=(f"host-{number}",)) for number in range(GROUPS_MAX + 3)]
    for number, record in enumerate(groups):
        queue.register(record, ttl_s=60 + number)
    claim = queue.claim(groups[-1], wait_s=1)
    view = await store.pool("video")
    assert {shown.id: shown.hosts for shown in view.groups} == {record.id: record.hosts for record in groups}
    assert [shown.tasks for shown in view.groups if shown.tasks] == [(claim.lease.task,) if claim else None]
    queue.close()
    await store.close()


async def test_an_unknown_id_gets_an_empty_answer(server: Server) -> None:
    """Every call accepts an unknown or malformed id and returns an empty answer."""
    store, events = RedisStore(server.url), RedisEvents(server.url)
    for task_id in (new_task_id("video"), TaskId("nonsense")):
        assert await store.get(task_id) is None
        assert await store.cancel(task_id) is None
        assert await store.preview(task_id) is None
        assert await store.delete([task_id]) == 0
        assert (await events.read(task_id)).events == ()
    assert await events.tail("video") == "0-0"
    await events.close()
    await store.close()


async def test_a_preview_is_replaced_and_only_an_ended_task_is_deleted(server: Server) -> None:
    """A preview replaces the one before, and the store deletes a task only after its end."""
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    await store.submit([task()])
    claim = queue.claim(group(), wait_s=1)
    assert claim is not None
    for image in (b"\0one", b"two\xff"):
        queue.preview(claim.lease, image, content_type="image/webp", ttl_s=60)
        assert await store.preview(claim.lease.task) == (image, "image/webp")
    with pytest.raises(ValueError, match="32768"):
        queue.preview(claim.lease, b"x" * 40_000, content_type="image/webp", ttl_s=60)
    with pytest.raises(ConflictError):
        await store.delete([claim.lease.task])
    queue.settle(claim.lease, Finished(artifacts=()))
    assert await store.delete([claim.lease.task]) == 1
    assert await store.preview(claim.lease.task) is None
    queue.close()
    await store.close()


async def test_a_pool_view_shows_groups_and_the_wake_phase(server: Server) -> None:
    """The pool view shows its groups as they registered, the wake phase, and how long the last wake took."""
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    assert (await store.pool("video")).wake_phase == "zero"
    await store.submit([task()])
    assert (await store.pool("video")).wake_phase == "detect"
    loading = group(
        GroupState.LOADING, ranks=2, phase="model", since_ms=5, hosts=("a", "b"), pids=(1, 2), plan="cfg 2"
    )
    queue.register(loading, ttl_s=60)
    view = await store.pool("video")
    assert (view.wake_phase, view.wake_since_ms, view.groups) == ("model", 5, (loading,))
    ready = GroupRecord(
        id=loading.id, state=GroupState.IDLE, ranks=2, wake={"ray": 4.0, "model": 1.5}, loads=1
    )
    assert queue.register(ready, ttl_s=60).drain is False
    view = await store.pool("video")
    assert (view.wake_phase, view.wake_last) == ("ready", {"ray": 4.0, "model": 1.5})
    assert await store.drain("video", ready.id) is True
    assert await store.drain("video", new_group_id()) is False
    assert queue.register(ready, ttl_s=60).drain is True
    queue.deregister(ready)
    assert (await store.pool("video")).groups == ()
    queue.close()
    await store.close()


async def test_a_pool_view_shows_the_operators_report_and_the_last_failure(server: Server) -> None:
    """The pool view shows the operator's report until its TTL ends, and a failure until a group is ready.

    While the operator reports, the durations that a group measured are not stored, because the group sees
    only a part of the wake.
    """
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    await store.submit([task()])
    report = PoolReport(phase="Waking", wanted=2, wake_phase="image", wake_since_ms=7, wake_began_ms=3)
    await store.publish_report("video", report, ttl_s=60)
    cause = Cause(reason="ModelMissing", message="/m is not a folder")
    queue.report_failure(cause, rank=1)
    view = await store.pool("video")
    assert (view.wake_phase, view.wake_since_ms, view.report) == ("image", 7, report)
    assert view.failure == cause
    loading = group(GroupState.LOADING, phase="model", since_ms=9)
    queue.register(loading, ttl_s=60)
    assert (await store.pool("video")).wake_phase == "model"
    queue.register(replace(loading, state=GroupState.IDLE, wake={"ray": 4.0}), ttl_s=60)
    view = await store.pool("video")
    assert (view.wake_phase, view.wake_last, view.failure) == ("ready", {}, None)
    last = {"pods": 2.0, "ray": 4.0, "total": 6.5}
    await store.publish_report("video", replace(report, wake_phase="ready", wake_last=last), ttl_s=0.05)
    assert (await store.pool("video")).wake_last == last

    async def report_expired() -> bool:
        return (await store.pool("video")).report is None

    await wait_until_async(report_expired, 60, "the report to expire")
    assert (await store.pool("video")).wake_last == last
    queue.close()
    await store.close()


async def test_a_tasks_events_are_read_without_a_gap(server: Server) -> None:
    """Reading after any event id returns exactly the events that follow, before and after the claim."""
    store, queue, log = RedisStore(server.url), RedisQueue(server.url, pool="video"), RedisEvents(server.url)
    answer = (await store.submit([task()]))[0]
    assert isinstance(answer, Submitted)
    task_id = answer.record.id
    waiting = (await log.read(task_id)).events
    assert [(event.type, event.data, event.attempt) for event in waiting] == [("queued", {"position": 1}, 0)]
    assert (await log.read(task_id, after=waiting[0].id)).events == ()
    claim = queue.claim(group(), wait_s=1)
    assert claim is not None
    queue.report(claim.lease, [EventDraft(type="progress", data={"step": i}) for i in range(5)])
    all_events = (await log.read(task_id)).events
    assert [event.type for event in all_events] == ["queued", "started", *["progress"] * 5]
    assert all_events[0] == waiting[0]
    for i, event in enumerate(all_events):
        assert (await log.read(task_id, after=event.id)).events == all_events[i + 1 :]
    assert (await log.read(task_id, limit=2)).events == all_events[:2]
    await log.close()
    queue.close()
    await store.close()


async def test_a_reader_learns_that_older_events_were_trimmed(server: Server) -> None:
    """A task keeps about its last 1,000 events, and a reader that starts before them gets ``trimmed``."""
    store, queue, log = RedisStore(server.url), RedisQueue(server.url, pool="video"), RedisEvents(server.url)
    await store.submit([task()])
    claim = queue.claim(group(), wait_s=1)
    assert claim is not None
    first = (await log.read(claim.lease.task)).events
    for _ in range(13):
        queue.report(claim.lease, [EventDraft(type="progress", data={}) for _ in range(100)])
    page = await log.read(claim.lease.task, after=first[0].id)
    assert page.trimmed
    assert len(page.events) >= 1000
    assert (await log.read(claim.lease.task)).trimmed
    assert not (await log.read(claim.lease.task, after=page.events[500].id)).trimmed
    await log.close()
    queue.close()
    await store.close()


async def test_a_reader_sees_every_event_across_a_restart(server: Server) -> None:
    """A reader sees every event once and in order, although the server restarts."""
    store, log = RedisStore(server.url), RedisEvents(server.url)
    seen: list[EventRecord] = []

    async def follow() -> None:
        async for events in log.follow("video", after="0-0"):
            seen.extend(events)

    following = asyncio.create_task(follow())
    first, second = [task() for _ in range(5)], [task(priority=Priority.HIGH) for _ in range(5)]
    await store.submit(first)

    async def has(count: int) -> bool:
        return len(seen) >= count

    await wait_until_async(lambda: has(5), 30, "five events")
    await asyncio.to_thread(server.restart, hard=True)
    await store.submit(second)
    await wait_until_async(lambda: has(10), 30, "ten events")
    assert [event.task for event in seen] == [new.id for new in [*first, *second]]
    assert [event.id for event in seen][-1] == await log.tail("video")
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    await log.close()
    await store.close()


async def test_a_reader_that_resumes_before_the_oldest_event_gets_an_error(server: Server) -> None:
    """A reader that resumes before the oldest event gets an error instead of a silent gap."""
    store, log = RedisStore(server.url), RedisEvents(server.url)
    await store.submit([task() for _ in range(3)])
    before_oldest = "0-1"
    with server.client() as client:
        client.xtrim(Keys(prefix="daybreak", pool="video").single("events"), maxlen=1, approximate=False)
    with pytest.raises(EventsTrimmedError):
        await anext(log.follow("video", after=before_oldest))
    await log.close()
    await store.close()


async def test_every_adapter_raises_an_error_while_redis_is_down() -> None:
    """Store, queue and event log raise `StoreUnavailableError` while no server is running."""
    url = f"redis://127.0.0.1:{free_port()}"
    store, queue, log = RedisStore(url), RedisQueue(url, pool="video"), RedisEvents(url)
    with pytest.raises(StoreUnavailableError):
        await store.submit([task()])
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    with pytest.raises(StoreUnavailableError):
        await store.tick("video")
    with pytest.raises(StoreUnavailableError):
        await log.read(new_task_id("video"))
    with pytest.raises(StoreUnavailableError):
        queue.claim(group(), wait_s=1)
    assert (await facts(url)).error is not None
    queue.close()
    await log.close()
    await store.close()


async def test_a_call_succeeds_even_if_its_change_cannot_be_reported(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis has made the change, so a settle and a cancel succeed although `on_change` fails. The log has one line."""

    class CannotReportError(Exception):
        """This type of error is local to the test, because a process logs each type only once."""

    def on_change(change: Change) -> None:
        raise CannotReportError

    store = RedisStore(server.url, on_change=on_change)
    queue = RedisQueue(server.url, pool="video", on_change=on_change)
    await store.submit([task(), task()])
    claim = queue.claim(group(), wait_s=1)
    assert claim is not None
    settled = queue.settle(claim.lease, Failed(code="oops", message="it broke", permanent=True))
    assert settled.state is State.FAILED
    (waiting,) = (await store.list("video", "t", states=frozenset({State.QUEUED}))).records
    cancelled = await store.cancel(waiting.id)
    assert cancelled is not None
    assert cancelled.state is State.CANCELLED
    lines = [line for line in caplog.records if line.exc_info and line.exc_info[0] is CannotReportError]
    assert [line.levelname for line in lines] == ["ERROR"]
    queue.close()
    await store.close()


async def test_a_call_that_its_caller_cancels_is_not_measured(server: Server) -> None:
    """The script of the cancelled call may succeed, so the call must not count as failed."""
    calls: list[tuple[str, bool]] = []
    store = RedisStore(server.url, on_call=lambda script, _seconds, ok: calls.append((script, ok)))
    await store.measure("video")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        call = asyncio.create_task(store.measure("video"))
        await asyncio.sleep(0)  # the call is sent
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert calls == [("measure", True)]
    await store.close()


async def test_server_facts_cover_what_doctor_checks(server: Server) -> None:
    """The facts cover everything that `doctor` checks about a server."""
    reported = await facts(server.url)
    assert (reported.error, reported.maxmemory_policy, reported.appendonly, reported.appendfsync) == (
        None,
        "noeviction",
        True,
        "everysec",
    )
    assert reported.version is not None
    assert reported.compatible >= (7, 0)
    assert reported.ping_ms is not None


def test_a_key_name_parses_to_its_kind_and_object() -> None:
    """Parsing a key's name gives back the kind and the object from which it was made."""
    keys = Keys(prefix="daybreak", pool="video")
    for name in SINGLE:
        assert keys.parse(keys.single(name)) == (name, "")
    for family in FAMILIES:
        assert keys.parse(keys.of(family, "x_1")) == (family, "x_1")
    assert keys.parse("daybreak:{video}:nonsense") is None
    assert keys.parse("other") is None
