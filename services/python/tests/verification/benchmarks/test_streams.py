"""Short runs of the benchmark of streams. The tests check no timing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.ports.events import EventPage
from testkit.valkey import Server
from verification.benchmarks.http.parts import Cores
from verification.benchmarks.streams import relaying
from verification.benchmarks.streams.__main__ import main
from verification.benchmarks.streams.sse_clients import Writer, running_tasks
from verification.results import load


@pytest.mark.parametrize("part", ["many-tasks", "one-task"])
def test_a_few_clients_lose_no_event(part: str, tmp_path: Path) -> None:
    """Fifty clients see every event once, and each measured value has a target."""
    assert main(["--quick", "--part", part, "--out", str(tmp_path)]) == 0
    memory, lag, a_core, wrong = load(tmp_path / "streams.json").rows
    assert wrong.value == 0
    assert wrong.held
    assert all(row.target for row in (memory, lag, a_core))
    assert a_core.value > 0


def test_the_events_that_the_benchmark_writes_are_the_tasks_history(valkey: Server) -> None:
    """A client that reconnects finds these events in the task's history, as if the script `report` had written them."""
    (task,) = asyncio.run(running_tasks(valkey.url, 1))
    writer = Writer(valkey.port, [task])
    writer.write(seconds=2)
    writer.close()

    async def history() -> EventPage:
        log = RedisEvents(valkey.url)
        try:
            return await log.read(task)
        finally:
            await log.close()

    events = asyncio.run(history()).events
    assert [event.type for event in events] == ["queued", "started", "progress", "progress"]
    assert [event.data["step"] for event in events[2:]] == [0, 1]


def test_the_relay_is_measured_beside_its_baseline(tmp_path: Path) -> None:
    """The table has a row for each batch size, one for decoding, and one for two consumers."""
    assert main(["--quick", "--part", "relay", "--out", str(tmp_path)]) == 0
    rows = load(tmp_path / "streams.json").rows
    assert [row.baseline is not None for row in rows] == [True, True, True, False]
    assert all(row.value > 0 for row in rows)


def test_a_consumer_that_fails_gives_no_rate(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a consumer fails or does not start, the measurement fails. Otherwise, such a consumer would seem fast."""
    with valkey.client() as client:
        client.xadd(relaying.KEY, {"task": "echo_1"})
    with pytest.raises(AssertionError, match="a consumer failed with exit code 1"):
        relaying.several(valkey.url, "failing", 1, batch="many", consumers=1)  # type: ignore[arg-type]
    monkeypatch.setattr(relaying.parts, "HOME", tmp_path)  # this folder lacks the module of the consumer
    with pytest.raises(AssertionError, match="a consumer did not start"):
        relaying.several(valkey.url, "absent", 1, batch=1, consumers=1)


def test_the_stream_has_exactly_the_events_that_are_to_be_relayed() -> None:
    """The stream is filled in slices of 1,000 events, and the last slice here has only 500."""
    with relaying.store(1500, Cores.here()) as running, redis.Redis(port=running.port) as client:
        assert client.xlen(relaying.KEY) == 1500
