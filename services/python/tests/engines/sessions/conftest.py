"""A pool of simulated speech on a real Valkey. It calls ``tick`` itself; its groups are processes with watchdogs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daybreak_server import wiring
from daybreak_server.adapters.redis.sessions.events import RedisSessionEvents
from daybreak_server.adapters.redis.sessions.store import RedisSessionStore
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import ulid
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    NewSession,
    SessionEvent,
    SessionEventType,
    SessionId,
)
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server

HERE = Path(__file__).parents[3]
POOL = "simulated-speech"
LEADER = f"""
import logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
from daybreak_server import wiring
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings
rank = wiring.build_rank(
    Settings.model_validate_json(sys.stdin.readline()), "{POOL}", on_broken=lambda why: os._exit(70), with_watchdog=True
)
rank.start()
sys.stdin.read()
rank.stop(timeout_s=20)
"""


class Group:
    """A group in a separate process."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.log = folder / f"group-{ulid()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LEADER],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                cwd=HERE,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(settings.model_dump_json() + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self, *, on: bool = True) -> None:
        os.kill(self.process.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def ask_to_leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


class SpeechPool:
    """The pool, as a gateway sees it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        endpoint = wiring.redis_endpoint(settings)
        prefix = settings.redis.prefix
        self.store = RedisSessionStore(endpoint, limits=wiring.session_limits(settings), prefix=prefix)
        self.events = RedisSessionEvents(endpoint, self.store, prefix=prefix)
        self.tasks = RedisStore(endpoint, prefix=prefix, target_loads=wiring.target_loads(settings))
        self.groups: list[Group] = []
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self.tasks.tick(POOL)
            await asyncio.sleep(0.5)

    async def start_group(self) -> Group:
        """Start a group, and wait until it is ready."""
        before = {group.group for group in (await self.store.sessions_overview(POOL)).groups}
        self.groups.append(Group(self.settings, self._folder))
        async with asyncio.timeout(60):
            while {group.group for group in (await self.store.sessions_overview(POOL)).groups} <= before:
                assert self.groups[-1].process.poll() is None, self.groups[-1].log.read_text()
                await asyncio.sleep(0.05)
        return self.groups[-1]

    async def open(self, *, target: str = "de", **fields: Any) -> SessionId:
        new = NewSession(
            id=SessionId(f"{POOL}_{ulid()}"),
            pool=POOL,
            tenant="default",
            source="en",
            target=target,
            **fields,
        )
        return (await self.store.open_session(new)).session.id

    async def speak(
        self, session: SessionId, audio: bytes, *, chunk_s: float = 0.1, pace: float = 1.0, at: int = 0
    ) -> None:
        """Send audio ``pace`` times as fast as in real time, and end the input."""
        size = int(chunk_s * SAMPLE_RATE) * SAMPLE_BYTES
        for begin in range(0, len(audio), size):
            chunk = audio[begin : begin + size]
            last = begin + size >= len(audio)
            await self.store.append_audio(session, chunk, at=at + begin // SAMPLE_BYTES, end=last)
            await asyncio.sleep(chunk_s / pace)

    async def texts(self, session: SessionId) -> tuple[str, list[SessionEvent]]:
        """Wait for the end of a session. :returns: all of its text, and all of its events."""
        events = []
        async with asyncio.timeout(90):
            async for event in self.events.follow_session(session):
                events.append(event)
        text = "".join(event.data["text"] for event in events if event.type is SessionEventType.TEXT)
        return text, events

    async def translated(self, audio: bytes, *, pace: float = 50.0, **fields: Any) -> str:
        """The text of an undisturbed session with this audio."""
        session = await self.open(**fields)
        await self.speak(session, audio, pace=pace)
        return (await self.texts(session))[0]

    async def close(self) -> None:
        self._ticking.cancel()
        await asyncio.wait([self._ticking])
        for group in self.groups:
            if group.process.poll() is None:
                group.freeze(on=False)
                group.kill()
            if group.process.stdin is not None and not group.process.stdin.closed:
                group.process.stdin.close()
        await self.events.close()
        await self.store.close()
        await self.tasks.close()


def settings_of(server: Server, folder: Path, **options: Any) -> Settings:
    """Settings with the pool. The prefix keeps its keys apart from those of other tests.

    Turns have one block even if a slow machine lags behind, because turns of another length give another text.
    """
    turns = {"max_latency_multiplier": 1}
    defaults: dict[str, Any] = {"workload": POOL, "lease": {"lease_s": 4}, "drain_s": 5, "sessions": turns}
    return Settings.model_validate(
        {
            "data_dir": str(folder),
            "redis": {"url": server.url, "prefix": f"test-{ulid().lower()}"},
            "pools": {POOL: defaults | options},
        }
    )


def pool_of(settings: Settings, folder: Path) -> SpeechPool:
    """The pool of these settings."""
    return SpeechPool(settings, folder)


def noise(seconds: float, *, seed: int = 1) -> bytes:
    """Random audio, which differs for each seed."""
    import random

    return random.Random(seed).randbytes(int(seconds * SAMPLE_RATE) * SAMPLE_BYTES)


@pytest_asyncio.fixture
async def speech(valkey: Server, tmp_path: Path) -> AsyncIterator[Callable[..., SpeechPool]]:
    """Makes pools. The options of a call are settings of the pool."""
    made: list[SpeechPool] = []

    def make(**options: Any) -> SpeechPool:
        made.append(pool_of(settings_of(valkey, tmp_path, **options), tmp_path))
        return made[-1]

    yield make
    for pool in made:
        await pool.close()


@pytest.fixture(autouse=True)
def show_logs(tmp_path: Path) -> Iterator[None]:
    """Print the logs of the groups; pytest shows them if the test fails."""
    yield
    for log in sorted(tmp_path.glob("group-*.log")):
        print(log.name, log.read_text()[-6000:])
