"""`daybreak.event_relay` delivers at least once and reports gaps, on an old Redis and on the Valkey of Daybreak."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from daybreak.core.follow import parse_event_id
from daybreak.errors import ConfigError, UnreachableError
from daybreak.event_relay import Delivery, Relay, RelayGapError
from daybreak.testing import LocalDaybreak
from daybreak.wire import Event

PAGE = Path(__file__).parents[2] / "docs" / "06-client.md"
POOLS = count(1)
WAIT_S = 60.0


class Stream:
    """The stream of a pool that has no server: the test writes its events."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pool = f"relay{next(POOLS)}"
        self.key = f"daybreak:{{{self.pool}}}:events"
        self.redis: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=30)

    def add(self, number: int = 1, **fields: str) -> list[str]:
        entry = {"task": f"{self.pool}_1", "type": "log", "attempt": "1", "data": "{}"} | fields
        return [self.redis.xadd(self.key, entry) for _ in range(number)]

    def relay(self, consumer: str = "a", **options: Any) -> Relay:
        return Relay(self.url, pool=self.pool, group="g", consumer=consumer, **options)

    def age(self, consumer: str) -> None:
        """Make the pending events of this consumer look an hour old."""
        pending = self.redis.xpending_range(self.key, "g", "-", "+", 999, consumername=consumer)
        ids = [entry["message_id"] for entry in pending]
        self.redis.xclaim(self.key, "g", consumer, 0, ids, idle=3_600_000, justid=True)

    def pending(self) -> int:
        return self.redis.xpending(self.key, "g")["pending"]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """This machine's `redis-server`, if any. In CI that is 7.0, the oldest version that Daybreak supports."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on PATH")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            client = redis.Redis(port=port, retry=Retry(ConstantBackoff(0.05), 600), socket_timeout=30)
            client.ping()
            client.close()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@pytest.fixture(params=["valkey", "redis"])
def stream(request: pytest.FixtureRequest) -> Iterator[Stream]:
    embedded = request.param == "valkey"
    made = Stream(
        request.getfixturevalue("daybreak").redis_url if embedded else request.getfixturevalue("oldest")
    )
    yield made
    made.redis.delete(made.key)
    made.redis.close()


async def next_delivery(relay: Relay) -> Delivery:
    return await asyncio.wait_for(anext(relay), WAIT_S)


async def take(relay: Relay, number: int, *, ack: bool = True) -> list[str]:
    ids = []
    for _ in range(number):
        delivery = await next_delivery(relay)
        ids.append(str(delivery.event.id))
        if ack:
            await delivery.ack()
    return ids


async def until(look: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


async def test_events_are_the_same_as_in_the_api(daybreak: LocalDaybreak) -> None:
    """The relay and the API return identical events of real tasks, including files and failures."""
    with daybreak.client() as client:
        inputs = [
            {"message": "hé", "steps": 4, "step_s": 0.05, "preview": True, "artifact_bytes": 9},
            {"steps": 3, "fail_at": 2, "fail_attempts": 1},
            {"steps": 3, "fail_at": 1, "fail_kind": "permanent"},
        ]
        tasks = [client.submit("echo", input).id for input in inputs]
        api = {task: [event for event in client.events(task) if event.id] for task in tasks}
        ended: set[str] = set()
        relayed: dict[str, list[Any]] = {task: [] for task in tasks}
        async with Relay(daybreak.redis_url, pool="echo", group="same", consumer="a") as relay:
            while ended < set(tasks):
                delivery = await next_delivery(relay)
                undecoded = delivery.task, delivery.type, Event.model_validate_json(delivery.json())
                await delivery.ack()
                assert undecoded == (delivery.event.task, delivery.event.type.value, delivery.event)
                assert json.loads(delivery.json()) == delivery.event.to_json()
                if delivery.event.task in relayed:
                    relayed[delivery.event.task].append(delivery.event)
                    ended |= {delivery.event.task} if delivery.event.type.terminal else set()
        urls = {event.data["url"] for event in relayed[tasks[0]] if "url" in event.data}
        names = ("preview", "artifacts/echo.txt", "artifacts/echo.bin")
        assert urls == {f"/v1/tasks/{tasks[0]}/{name}" for name in names}
        assert all(urllib.request.urlopen(daybreak.url + url).status == 200 for url in urls)
    assert relayed == api
    kinds = {event.type.value for events in api.values() for event in events}
    assert kinds >= {
        "queued",
        "started",
        "progress",
        "preview",
        "artifact",
        "retrying",
        "succeeded",
        "failed",
    }


async def test_unacknowledged_events_come_first_after_a_restart(stream: Stream) -> None:
    """The consumer first receives its pending events in order, then new ones. No event is removed from Redis."""
    ids = stream.add(250)
    async with stream.relay() as relay:
        got = await take(relay, 1)
        got += await take(relay, 119, ack=False)
    async with stream.relay() as relay:
        first = await next_delivery(relay)
        assert (first.event.id, first.redelivered) == (ids[1], True)
        await relay.ack(first)
        again = await take(relay, 248)
        new = stream.add(1)
        last = await next_delivery(relay)
        assert ([last.event.id], last.redelivered) == (new, False)
        await last.ack()
    assert got == ids[:120]
    assert again == ids[2:]
    assert stream.pending() == 0
    assert stream.redis.xlen(stream.key) == 251
    assert [consumer["name"] for consumer in stream.redis.xinfo_consumers(stream.key, "g")] == ["a"]


async def test_events_of_a_dead_consumer_come_before_new_ones(stream: Stream) -> None:
    """After `idle_s`, another consumer claims the events of the dead consumer, one page at a time."""
    ids = stream.add(7)
    async with stream.relay("dead", batch=5) as relay:
        await take(relay, 5, ack=False)
    stream.age("dead")
    async with stream.relay("b", batch=2) as relay:
        assert await take(relay, 7) == ids
    assert stream.pending() == 0


async def test_a_slow_consumer_drops_events_that_another_has_claimed(stream: Stream) -> None:
    """If another consumer claims events that a slow consumer has buffered, the slow consumer does not deliver them."""
    ids = stream.add(5)
    async with stream.relay("slow") as slow, stream.relay("quick") as quick:
        assert await take(slow, 1, ack=False) == ids[:1]
        stream.age("slow")
        slow._buffered_at -= 3600
        assert await take(quick, 5) == ids
        new = stream.add(1)
        assert await take(slow, 1) == new
    assert stream.pending() == 0


async def test_events_that_were_trimmed_before_delivery_are_reported_once(stream: Stream) -> None:
    """One error reports the gap, with the ids on both sides of it. Iterating again continues after the gap."""
    ids = stream.add(10)
    async with stream.relay(batch=2) as relay:
        assert await take(relay, 2) == ids[:2]
        stream.redis.xtrim(stream.key, maxlen=3, approximate=False)
        with pytest.raises(RelayGapError, match="trimmed") as caught:
            await next_delivery(relay)
        assert (caught.value.after, caught.value.before) == (ids[1], ids[7])
        assert await take(relay, 3) == ids[7:]
        more = stream.add(2)
        stream.redis.xtrim(stream.key, maxlen=0, approximate=False)
        with pytest.raises(RelayGapError) as caught:
            await next_delivery(relay)
        assert caught.value.after == ids[9]
        assert parse_event_id(str(caught.value.before)) > parse_event_id(more[1])
        new = stream.add(2)
        assert await take(relay, 2) == new
    async with stream.relay() as relay:
        new = stream.add(1)
        assert await take(relay, 1) == new
        lost = stream.add(9)
        stream.redis.xtrim(stream.key, maxlen=2, approximate=False)
        with pytest.raises(RelayGapError):
            await next_delivery(relay)
        assert await take(relay, 2) == lost[7:]


async def test_events_trimmed_after_delivery_are_not_a_gap(stream: Stream) -> None:
    """If all delivered events are trimmed, a consumer and its successor receive the next events without an error."""
    for _ in range(2):
        async with stream.relay() as relay:
            for _ in range(2):
                ids = stream.add(3)
                assert await take(relay, 3) == ids
                stream.redis.xtrim(stream.key, maxlen=0, approximate=False)


@pytest.mark.parametrize("consumer", ["a", "b"])
async def test_pending_events_that_were_trimmed_are_reported(stream: Stream, consumer: str) -> None:
    """The same consumer, or another, receives the remaining events and an error for the gap."""
    ids = stream.add(5)
    async with stream.relay() as relay:
        await take(relay, 5, ack=False)
    stream.age("a")
    stream.redis.xtrim(stream.key, maxlen=2, approximate=False)
    async with stream.relay(consumer) as relay:
        with pytest.raises(RelayGapError) as caught:
            await next_delivery(relay)
        assert parse_event_id(caught.value.after) < parse_event_id(ids[0])
        assert parse_event_id(ids[2]) < parse_event_id(str(caught.value.before)) <= parse_event_id(ids[3])
        assert await take(relay, 2) == ids[3:]
    assert stream.pending() == 0


async def test_a_new_group_begins_at_its_start(stream: Stream) -> None:
    """A new group begins at the oldest event (and the relay reports no gap), at the next event, or after an id."""
    ids = stream.add(6)
    stream.redis.xtrim(stream.key, maxlen=4, approximate=False)
    async with stream.relay() as relay:
        assert await take(relay, 4) == ids[2:]
    behind = Relay(stream.url, pool=stream.pool, group="h", consumer="a", start=ids[3])
    newest = Relay(stream.url, pool=stream.pool, group="i", consumer="a", start="$")
    async with behind, newest:
        assert await take(behind, 2) == ids[4:]
        new = stream.add(1)
        assert await take(newest, 1) == new


@pytest.mark.parametrize("stream", ["valkey"], indirect=True)
async def test_a_relay_survives_the_death_of_valkey(
    daybreak: LocalDaybreak, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    """Valkey is killed, with all events on disk, while the relay reads and acknowledges. All events arrive in order."""
    seen: list[str] = []

    async def read(relay: Relay, number: int) -> None:
        while len(set(seen)) < number:
            delivery = await next_delivery(relay)
            seen.append(str(delivery.event.id))
            await delivery.ack()

    async with stream.relay() as relay:
        ids = stream.add(150)
        reading = asyncio.create_task(read(relay, 210))
        await until(lambda: len(seen) > 20, "some events")
        assert stream.redis.execute_command("WAITAOF", 1, 0, 30_000)[0] == 1
        os.kill(daybreak.pids["valkey"], signal.SIGKILL)
        more: list[str] = []

        def served() -> bool:
            try:
                more.extend(stream.add(60 - len(more)))
            except redis.RedisError:
                return False
            return len(more) == 60

        await until(served, "Valkey to be back")
        await asyncio.wait_for(reading, WAIT_S)
    first_seen = list(dict.fromkeys(seen))
    assert first_seen == ids + more
    assert stream.pending() == 0
    assert "retrying" in caplog.text


async def test_a_lost_group_is_recreated_and_reported(stream: Stream) -> None:
    """If the group or the stream is deleted, the relay raises one error and continues where it was."""
    ids = stream.add(3)
    async with stream.relay() as relay:
        assert await take(relay, 3) == ids
        stream.redis.xgroup_destroy(stream.key, "g")
        with pytest.raises(RelayGapError, match="was lost"):
            await next_delivery(relay)
        ids = stream.add(2)
        assert await take(relay, 2) == ids
        waiting = asyncio.create_task(next_delivery(relay))
        stream.redis.delete(stream.key)
        with pytest.raises(RelayGapError, match="was lost"):
            await waiting
        ids = stream.add(1)
        assert await take(relay, 1) == ids


async def test_a_cancelled_wait_loses_no_event(stream: Stream) -> None:
    """All events are delivered although the wait is cancelled again and again while they arrive."""
    seen: list[str] = []
    async with stream.relay(batch=3) as relay:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(relay), 0.05)
        ids = stream.add(40)
        end = time.monotonic() + WAIT_S
        timeouts = (0.0005, 0.001, 0.002, 0.004, 0.1)
        while len(seen) < 40 and time.monotonic() < end:
            for timeout in timeouts:
                try:
                    delivery = await asyncio.wait_for(anext(relay), timeout)
                except TimeoutError:
                    continue
                seen.append(str(delivery.event.id))
                await delivery.ack()
    assert seen == ids
    assert stream.pending() == 0


async def test_a_cancelled_wait_does_not_repeat_delivered_events(stream: Stream) -> None:
    """Events claimed from a dead consumer and delivered do not come again, although they are not acknowledged yet."""
    ids = stream.add(2)
    async with stream.relay("dead") as relay:
        await take(relay, 2, ack=False)
    stream.age("dead")
    async with stream.relay("b") as relay:
        claimed = [await next_delivery(relay) for _ in range(2)]
        assert [delivery.event.id for delivery in claimed] == ids
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(relay), 0.3)
        new = stream.add(1)
        assert await take(relay, 1) == new
        await relay.ack(*claimed)
    assert stream.pending() == 0


async def test_unreadable_entries_are_skipped(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    """Events of a newer server and entries of other programs are skipped and acknowledged."""
    stream.add(1, type="novelty")
    stream.redis.xadd(stream.key, {"what": "ever"})
    stream.add(1, data="[1]")
    stream.add(1, data="{")
    ids = stream.add(1)
    async with stream.relay() as relay:
        assert await take(relay, 1) == ids
    assert stream.pending() == 0
    assert caplog.text.count("cannot be decoded") == 3


@pytest.mark.parametrize("stream", ["valkey"], indirect=True)
async def test_a_wrong_address_or_password_fails_at_once(stream: Stream) -> None:
    """`async with` raises the error. It does not wait for a server that may never exist."""
    wrong = {"redis://127.0.0.1:1": UnreachableError, "nonsense": ConfigError}
    wrong[re.sub(r":[^:@/]+@", ":wrong@", stream.url)] = ConfigError
    for url, error in wrong.items():
        with pytest.raises(error):
            async with Relay(url, pool="p", group="g", consumer="a"):
                pass
    stream.redis.set(stream.key, "a string")
    with pytest.raises(ConfigError, match="WRONGTYPE"):
        async with stream.relay():
            pass


def test_the_examples_of_the_page_run(
    daybreak: LocalDaybreak, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/06-client.md works unchanged."""
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "Relay(" in block
    )
    monkeypatch.setenv("REDIS_URL", daybreak.redis_url)
    with daybreak.client() as client:
        client.wait(client.submit("echo", {"steps": 2}))
    exec(compile(example, str(PAGE), "exec"), {"__name__": "__main__"})
    assert "queued" in capsys.readouterr().out
