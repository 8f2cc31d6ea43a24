"""Sessions while the store restarts, while a client is silent, and after a change of the pool's settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from daybreak_server.domain.sessions import SessionEnd, SessionEventType
from daybreak_server.ports.sessions import SessionsFullError
from daybreak_server.ports.store_errors import StoreUnavailableError
from daybreak_server.settings.tree import Settings
from testkit.valkey import Server, start_valkey
from tests.engines.sessions.conftest import POOL, SpeechPool, noise, pool_of, settings_of


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A separate server, so that a test can restart it."""
    return start_valkey(tmp_path / "own-valkey")


@pytest_asyncio.fixture
async def own(server: Server, tmp_path: Path) -> AsyncIterator[SpeechPool]:
    """A pool on the separate server."""
    pool = pool_of(settings_of(server, tmp_path), tmp_path)
    yield pool
    await pool.close()
    server.stop()


async def test_a_restart_of_the_store_loses_and_repeats_nothing(own: SpeechPool, server: Server) -> None:
    await own.start_group()
    audio = noise(5.1)
    expected = await own.translated(audio)
    session = await own.open()
    size, sent = 3200, 0
    async with asyncio.timeout(60):
        while sent < len(audio):
            if sent == 10 * size:
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            chunk = audio[sent : sent + size]
            try:
                await own.store.append_audio(session, chunk, at=sent // 2, end=sent + size >= len(audio))
                sent += size
            except StoreUnavailableError:
                pass
            await asyncio.sleep(0.05)
    text, events = await own.texts(session)
    assert text == expected
    assert [event.type for event in events].count(SessionEventType.STARTED) == 1


async def test_a_silent_client_ends_and_frees_its_place(speech: Callable[..., SpeechPool]) -> None:
    pool = speech(options={"max_sessions": 1}, sessions={"session_timeout_s": 2})
    await pool.start_group()
    silent = await pool.open()
    await pool.store.append_audio(silent, noise(0.6), at=0)
    _, events = await pool.texts(silent)
    assert events[-1].data["reason"] == SessionEnd.IDLE
    assert await pool.translated(noise(1.1))


async def test_settings_change_while_sessions_run(speech: Callable[..., SpeechPool]) -> None:
    """An administrator sets the length of turns to two blocks. The change reaches the group and its sessions."""
    pool = speech(sessions={"max_latency_multiplier": 4})
    await pool.start_group()
    session = await pool.open()
    await pool.tasks.set_batching(POOL, {"latency_multiplier": 2, "max_batch_size": 4})
    async with asyncio.timeout(30):
        async for event in pool.events.follow_session(session):
            if event.type is SessionEventType.DEGRADED:
                assert event.data["latency_multiplier"] == 2
                break
    await pool.store.close_session(session)


async def test_a_strategy_that_chooses_what_cannot_run_breaks_its_group_and_no_session(
    speech: Callable[..., SpeechPool],
) -> None:
    """The log names the strategy. A group with another strategy continues the session."""
    own = "testkit.wrong_strategy:Twice"
    pool = speech(sessions={"strategy": own, "max_latency_multiplier": 1})
    group = await pool.start_group()
    session = await pool.open()
    await pool.store.append_audio(session, noise(0.6), at=0, end=True)
    assert await asyncio.to_thread(group.process.wait, 30) == 70
    assert f"The strategy '{own}' has chosen the session '{session}'" in group.log.read_text()
    corrected = pool.settings.model_dump_json().replace(own, "iteration")
    pool.settings = Settings.model_validate_json(corrected)
    await pool.start_group()
    text, events = await pool.texts(session)
    assert events[-1].data == {"reason": SessionEnd.FINISHED, "text": text}


async def test_a_new_group_reads_an_administrators_change_before_its_first_batch(
    speech: Callable[..., SpeechPool],
) -> None:
    """Without the change, the strategy in the settings would break the group at its first batch."""
    pool = speech(sessions={"strategy": "testkit.wrong_strategy:Twice", "max_latency_multiplier": 1})
    await pool.tasks.set_batching(POOL, {"strategy": "iteration"})
    session = await pool.open()
    await pool.store.append_audio(session, noise(0.6), at=0, end=True)
    group = await pool.start_group()
    text, events = await pool.texts(session)
    assert events[-1].data == {"reason": SessionEnd.FINISHED, "text": text}
    assert group.process.poll() is None


async def test_each_step_of_a_group_that_lags_is_reported_before_it_refuses(
    speech: Callable[..., SpeechPool],
) -> None:
    pool = speech(
        options={"prefill_ms": 500, "prefill_item_ms": 500, "decode_ms": 300},
        sessions={"lag_limit_ms": 100, "max_latency_multiplier": 4},
    )
    await pool.start_group()
    session = await pool.open()
    speaking = asyncio.create_task(pool.speak(session, noise(60)))
    steps: list[int] = []
    async with asyncio.timeout(60):
        async for event in pool.events.follow_session(session):
            if event.type is SessionEventType.DEGRADED:
                assert event.data["lag_ms"] > 100
                steps.append(event.data["latency_multiplier"])
            if len(steps) == 2:
                break
    assert steps == [2, 4]
    assert (await pool.store.session(session, tenant="default")).latency_multiplier == 4
    async with asyncio.timeout(60):
        while not all(group.measured.full for group in (await pool.store.sessions_overview(POOL)).groups):
            await asyncio.sleep(0.1)
    with pytest.raises(SessionsFullError, match="cannot keep up") as refused:
        await pool.open()
    assert refused.value.retry_after_s >= 1
    speaking.cancel()
    await pool.store.close_session(session)


async def test_fifty_sessions_at_once(speech: Callable[..., SpeechPool]) -> None:
    pool = speech()
    await pool.start_group()
    audio = [noise(2.3, seed=seed) for seed in range(50)]
    first = await pool.translated(audio[0])
    texts = await asyncio.gather(*(pool.translated(piece, pace=1.0) for piece in audio))
    assert texts[0] == first
    assert all(texts)
    assert (await pool.store.sessions_overview(POOL)).open == 0
