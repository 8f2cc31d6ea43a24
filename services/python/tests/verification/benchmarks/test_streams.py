"""The benchmark of streams runs; no timing is checked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.ports.events import EventPage
from testkit.valkey import Server
from verification.benchmarks.streams.__main__ import main
from verification.benchmarks.streams.sse_clients import Writer, running_tasks
from verification.results import load


@pytest.mark.parametrize("part", ["many-tasks", "one-task"])
def test_a_few_clients_lose_no_event(part: str, tmp_path: Path) -> None:
    """Fifty clients see every event once; each row has its target."""
    assert main(["--quick", "--part", part, "--out", str(tmp_path)]) == 0
    memory, lag, a_core, wrong = load(tmp_path / "streams.json").rows
    assert wrong.value == 0
    assert wrong.held
    assert all(row.target for row in (memory, lag, a_core))
    assert a_core.value > 0


def test_the_events_that_the_benchmark_writes_are_the_tasks_history(valkey: Server) -> None:
    """A client that reconnects reads them like the events that `report` writes."""
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
    """Both batch sizes, decoding, and two consumers have a figure."""
    assert main(["--quick", "--part", "relay", "--out", str(tmp_path)]) == 0
    rows = load(tmp_path / "streams.json").rows
    assert [row.baseline is not None for row in rows] == [True, True, True, False]
    assert all(row.value > 0 for row in rows)
