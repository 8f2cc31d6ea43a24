"""Tests with real group processes: a session's text grows while audio comes, and survives the death of the group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from daybreak_server.domain.sessions import SessionEnd, SessionEvent, SessionEventType, SessionId
from tests.engines.sessions.conftest import POOL, SpeechPool, noise

TEXT, SEGMENT = SessionEventType.TEXT, SessionEventType.SEGMENT


async def first_texts(pool: SpeechPool, session: SessionId, count: int) -> list[SessionEvent]:
    """Wait for the first ``count`` pieces of a session's text, and return their events."""
    found: list[SessionEvent] = []
    async with asyncio.timeout(60):
        async for event in pool.events.follow_session(session):
            found += [event] if event.type is TEXT else []
            if len(found) == count:
                break
    return found


async def owner(pool: SpeechPool, session: SessionId) -> str | None:
    return (await pool.store.session(session, tenant="default")).group


async def full(pool: SpeechPool) -> None:
    """Wait until all groups report that they accept no new session."""
    async with asyncio.timeout(60):
        while not all(group.measured.full for group in (await pool.store.sessions_overview(POOL)).groups):
            await asyncio.sleep(0.1)


async def owned(pool: SpeechPool) -> SessionId:
    """Open a session, and wait until a group owns it."""
    session = await pool.open()
    async with asyncio.timeout(60):
        while await owner(pool, session) is None:
            await asyncio.sleep(0.02)
    return session


async def test_text_grows_while_audio_comes(speech: Callable[..., SpeechPool]) -> None:
    pool = speech()
    await pool.start_group()
    session = await pool.open()
    speaking = asyncio.create_task(pool.speak(session, noise(3.1), pace=1.0))
    early = await first_texts(pool, session, 2)
    assert not speaking.done(), "text came only after all audio"
    await speaking
    text, events = await pool.texts(session)
    assert text.startswith("".join(event.data["text"] for event in early))
    assert events[-1].data == {"reason": "finished", "text": text}
    segments = [event.data for event in events if event.type is SEGMENT]
    assert [segment["segment"] for segment in segments] == list(range(len(segments)))
    assert " ".join(segment["text"] for segment in segments) == text.strip()
    record = await pool.store.session(session, tenant="default")
    assert (record.end, record.consumed) == (SessionEnd.FINISHED, record.received)


@pytest.mark.parametrize("target", ["de", "zh", "en"])
async def test_sessions_that_share_batches_read_as_alone(
    speech: Callable[..., SpeechPool], target: str
) -> None:
    pool = speech()
    await pool.start_group()
    alone = [await pool.translated(noise(2.3, seed=seed), target=target) for seed in range(6)]
    together = await asyncio.gather(
        *(pool.translated(noise(2.3, seed=seed), target=target) for seed in range(6))
    )
    assert together == alone
    assert len(set(alone)) == 6


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_another_group_continues_in_mid_turn(speech: Callable[..., SpeechPool], how: str) -> None:
    """Decoding is so slow that the test kills or freezes the group in the middle of a turn."""
    pool = speech(options={"decode_ms": 60})
    first = await pool.start_group()
    audio = [noise(6.1, seed=seed) for seed in range(3)]
    expected = await asyncio.gather(*(pool.translated(piece) for piece in audio))
    sessions = [await owned(pool) for _ in audio]
    await pool.start_group()
    speaking = [
        asyncio.create_task(pool.speak(session, piece))
        for session, piece in zip(sessions, audio, strict=True)
    ]
    for session in sessions:
        await first_texts(pool, session, 3)
    if how == "killed":
        first.kill()
    else:
        first.freeze()
    await asyncio.gather(*speaking)
    for session, text in zip(sessions, expected, strict=True):
        found, events = await pool.texts(session)
        assert found == text
        attempts = [event.data["attempt"] for event in events if event.type is SessionEventType.STARTED]
        assert attempts == [1, 2]


async def test_a_thawed_group_writes_nothing_more(speech: Callable[..., SpeechPool]) -> None:
    pool = speech(options={"decode_ms": 60})
    first = await pool.start_group()
    audio = noise(8.1)
    expected = await pool.translated(audio)
    session = await owned(pool)
    second = await pool.start_group()
    speaking = asyncio.create_task(pool.speak(session, audio))
    await first_texts(pool, session, 3)
    first.freeze()
    async with asyncio.timeout(60):
        while (await pool.store.session(session, tenant="default")).attempt < 2:
            await asyncio.sleep(0.1)
    first.freeze(on=False)
    await speaking
    assert (await pool.texts(session))[0] == expected
    assert second.process.poll() is None


async def test_a_group_that_leaves_hands_its_sessions_over(speech: Callable[..., SpeechPool]) -> None:
    pool = speech(drain_s=60)
    first = await pool.start_group()
    audio = noise(8.1)
    expected = await pool.translated(audio)
    session = await owned(pool)
    before = await owner(pool, session)
    await pool.start_group()
    speaking = asyncio.create_task(pool.speak(session, audio))
    await first_texts(pool, session, 2)
    first.ask_to_leave()
    await asyncio.to_thread(first.process.wait, 40)
    assert await owner(pool, session) != before
    await speaking
    text, events = await pool.texts(session)
    assert text == expected
    waits = [event.data["reason"] for event in events if event.type is SessionEventType.WAITING]
    assert waits == ["released"]


async def test_orphans_continue_on_groups_that_are_too_late_for_new_sessions(
    speech: Callable[..., SpeechPool],
) -> None:
    """The steps of the model are so slow that all sessions lag. So both groups soon take no new sessions."""
    slow = {"prefill_ms": 300, "decode_ms": 100}
    pool = speech(options=slow, sessions={"max_latency_multiplier": 1, "lag_limit_ms": 100})
    first = await pool.start_group()
    sessions = [await owned(pool)]
    killed = await owner(pool, sessions[0])
    await pool.start_group()
    async with asyncio.timeout(60):
        while {await owner(pool, session) for session in sessions} == {killed}:
            sessions.append(await owned(pool))
    speaking = [asyncio.create_task(pool.speak(session, noise(20))) for session in sessions]
    await full(pool)
    first.kill()
    async with asyncio.timeout(60):
        while killed in {await owner(pool, session) for session in sessions}:
            await asyncio.sleep(0.1)
        while None in {await owner(pool, session) for session in sessions}:
            await asyncio.sleep(0.1)
    (left,) = (await pool.store.sessions_overview(POOL)).groups
    assert left.measured.full
    for task, session in zip(speaking, sessions, strict=True):
        task.cancel()
        await pool.store.close_session(session)


async def test_a_closed_session_frees_its_place(speech: Callable[..., SpeechPool]) -> None:
    pool = speech(options={"max_sessions": 1})
    await pool.start_group()
    session = await pool.open()
    await pool.store.append_audio(session, noise(1), at=0)
    await first_texts(pool, session, 1)
    await pool.store.close_session(session)
    assert await pool.translated(noise(1.1))


async def test_unknown_languages_fail_only_their_session(speech: Callable[..., SpeechPool]) -> None:
    pool = speech()
    await pool.start_group()
    session = await pool.open(target="xx")
    _, events = await pool.texts(session)
    assert events[-1].data["error"]["code"] == "unknown_languages"
    assert await pool.translated(noise(1.1))
