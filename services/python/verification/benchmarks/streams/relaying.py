"""Measures how fast a control plane's relay reads the events of a pool, decodes them and acknowledges them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from daybreak.event_relay import Delivery, Relay
from daybreak_server.domain.ids import new_task_id
from verification.benchmarks.http import parts
from verification.benchmarks.http.parts import Cores, Running

POOL = "echo"
KEY = f"daybreak:{{{POOL}}}:events"
_FILL = """
for i = 1, tonumber(ARGV[1]) do
  redis.call('XADD', KEYS[1], '*', 'task', ARGV[2], 'type', 'progress', 'attempt', '1', 'data',
    '{"phase":"work","fraction":0.5,"step":' .. i .. ',"steps":1000,"eta_s":12.5}')
end"""
_SLICE = 1000


@contextmanager
def store(events: int, cores: Cores) -> Iterator[Running]:
    """Run Valkey alone on its core, with ``events`` events in the pool's stream."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daybreak-relay-")))
        running = stack.enter_context(parts.valkey(folder / "valkey", fsync="everysec", cores=cores.server))
        with redis.Redis(port=running.port) as client:
            fill = client.register_script(_FILL)
            for filled in range(0, events, _SLICE):
                fill(keys=[KEY], args=[min(_SLICE, events - filled), new_task_id(POOL)])
        before = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, cores.clients)
        yield running


async def relay(
    url: str, group: str, events: int, *, batch: int, consumer: str = "one", decoded: bool = False
) -> float:
    """Events per second of one consumer that acknowledges a batch at a time. The consumer turns each event into JSON
    or, with ``decoded``, into a typed object."""
    received = 0
    held: list[Delivery] = []
    async with Relay(url, pool=POOL, group=group, consumer=consumer, batch=batch) as source:
        began = time.perf_counter()
        async for delivery in source:
            held.append(delivery)
            if decoded:
                _ = delivery.event
            else:
                delivery.json()
            received += 1
            if len(held) >= batch or received == events:
                await source.ack(*held)
                held.clear()
            if received == events:
                break
        return events / (time.perf_counter() - began)


def plain(url: str, group: str, events: int, *, batch: int) -> float:
    """Events per second of the baseline: redis-py reads and acknowledges events without parsing them."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.xgroup_create(KEY, group, id="0")
        began, received = time.perf_counter(), 0
        while received < events:
            entries = client.xreadgroup(group, "one", {KEY: ">"}, count=batch)[0][1]
            client.xack(KEY, group, *(entry for entry, _ in entries))
            received += len(entries)
        return received / (time.perf_counter() - began)


def several(url: str, group: str, events: int, *, batch: int, consumers: int) -> float:
    """Events per second of several consumers in one group, each in its own process.

    :raises AssertionError: if a consumer fails. Without this check a failure would look like a high rate.
    """
    with redis.Redis.from_url(url) as client:
        client.xgroup_create(KEY, group, id="0")
        share = events // consumers
        children = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "verification.benchmarks.streams.relaying",
                    url,
                    group,
                    str(share),
                    str(batch),
                    str(n),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=parts.HOME,
            )
            for n in range(consumers)
        ]
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n", "a consumer did not start"
            began = time.perf_counter()
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"\n")
                child.stdin.flush()
            for child in children:
                child.wait(300)
                assert child.returncode == 0, f"a consumer failed with exit code {child.returncode}"
            return share * consumers / (time.perf_counter() - began)
        finally:
            for child in children:
                child.kill()
                with child:  # closes its pipes and waits until it has ended
                    pass


def rounds(
    url: str, events: int, *, batch: int, count: int, decoded: bool = False
) -> tuple[list[float], list[float]]:
    """Events per second of the relay and of its baseline. The two alternate."""
    ours, baseline = [], []
    for number in range(count):
        name = f"{batch}-{decoded}-{number}"
        baseline.append(plain(url, f"p{name}", events, batch=batch))
        ours.append(asyncio.run(relay(url, f"r{name}", events, batch=batch, decoded=decoded)))
    return ours, baseline


def main(arguments: list[str]) -> None:
    """Run one consumer of :func:`several`: print ``ready``, wait for a line on standard input, and read the events."""
    url, group, events, batch, number = arguments
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(relay(url, group, int(events), batch=int(batch), consumer=f"c{number}"))


if __name__ == "__main__":
    main(sys.argv[1:])
