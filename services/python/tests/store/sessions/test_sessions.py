"""Tests a session's journal on real servers: opening, audio, owners, commits and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daybreak_server.adapters.redis.limits import SESSION_LIST_MAX
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionsMeasured,
    SessionState,
    SessionsThroughput,
    Turn,
)
from daybreak_server.ports.sessions import (
    TENANT_LIMIT,
    AudioBacklogError,
    AudioGapError,
    SessionEndedError,
    SessionsFullError,
    SessionUnknownError,
)
from tests.store.sessions.conftest import Sessions, pcm, take

TEXT, SEGMENT = SessionEventType.TEXT, SessionEventType.SEGMENT


def says(claim: SessionClaim, number: int, text: str, **fields: object) -> SessionCommit:
    commit = SessionCommit(
        lease=claim.lease,
        number=number,
        events=((TEXT, {"text": text, "segment": 0, "audio_ms": 0}),),
    )
    return replace(commit, **fields)  # type: ignore[arg-type]


async def test_a_session_is_opened_once(sessions: Sessions) -> None:
    new = sessions.new(target="zh", latency_multiplier=2, options={"a": [1, "ü"]}, client="me")
    first = await sessions.store.open_session(new)
    assert (first.session, first.state, first.latency_multiplier) == (new, SessionState.WAITING, 2)
    assert await sessions.store.open_session(replace(new, target="de")) == first
    assert await sessions.get(new.id) == first
    assert await sessions.store.sessions("speech") == [first]
    with pytest.raises(SessionUnknownError):
        await sessions.store.session(new.id, tenant="other")


async def test_audio_may_be_sent_again_but_not_skipped(sessions: Sessions) -> None:
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(1, 2, 3), at=0)
    assert (await sessions.store.append_audio(session, pcm(2, 3, 4), at=1)).received == 4
    assert (await sessions.store.append_audio(session, pcm(1, 2), at=0)).received == 4
    with pytest.raises(AudioGapError) as gap:
        await sessions.store.append_audio(session, pcm(9), at=5)
    assert gap.value.received == 4
    with pytest.raises(ValueError, match="not 16-bit"):
        await sessions.store.append_audio(session, b"x", at=4)
    ended = await sessions.store.append_audio(session, pcm(5), at=4, end=True)
    assert (ended.received, ended.input_ended) == (5, True)
    assert (await sessions.store.append_audio(session, pcm(6), at=5)).received == 5
    assert (await sessions.store.append_audio(session, pcm(6), at=9)).received == 5
    (claim,) = take(sessions.group())
    assert claim.audio == pcm(1, 2, 3, 4, 5)
    assert claim.record.input_ended


async def test_sessions_are_claimed_oldest_first_and_once(sessions: Sessions) -> None:
    opened = []
    for _ in range(3):
        opened.append(await sessions.open())
        sessions.driver.now += 1
    first, second = sessions.group(), sessions.group()
    claims = take(first, "g1", room=2)
    assert [claim.lease.session for claim in claims] == opened[:2]
    assert [claim.lease.session for claim in take(second, "g2")] == opened[2:]
    assert take(first) == []
    record = await sessions.get(opened[2])
    assert (record.state, record.group, record.attempt) == (SessionState.ACTIVE, "g2", 1)
    assert (await sessions.store.session_events(opened[2]))[0].data == {"group": "g2", "attempt": 1}


async def test_the_owner_reads_what_follows_and_learns_of_the_end(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    assert group.read_audio({claim.lease: 0}, wait_s=0) == []
    await sessions.store.append_audio(session, pcm(1, 2), at=0)
    await sessions.store.append_audio(session, pcm(3), at=2)
    (news,) = group.read_audio({claim.lease: 0}, wait_s=5)
    assert (news.session, news.audio, news.input_ended) == (session, pcm(1, 2, 3), False)
    assert group.read_audio({claim.lease: 3}, wait_s=0) == []
    await sessions.store.append_audio(session, b"", at=3, end=True)
    (news,) = group.read_audio({claim.lease: 3}, wait_s=5)
    assert (news.audio, news.input_ended) == (b"", True)
    await sessions.store.close_session(session)
    (news,) = group.read_audio({claim.lease: 3}, wait_s=5)
    assert news.stale


async def test_a_lost_inbox_loses_no_audio(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daybreak_server.adapters.redis.sessions.work.CHECK_S", 0.05)
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    assert group.read_audio({claim.lease: 0}, wait_s=0) == []
    sessions.driver.client.delete(*sessions.driver.client.keys("*si:*"))
    await sessions.store.append_audio(session, pcm(1), at=0)
    (news,) = group.read_audio({claim.lease: 0}, wait_s=5)
    assert news.audio == pcm(1)


async def test_the_next_owner_continues_in_mid_turn(sessions: Sessions) -> None:
    session, first = await sessions.open(), sessions.group()
    await sessions.store.append_audio(session, pcm(*range(10)), at=0)
    (claim,) = take(first)
    turns = [Turn(start=0, end=4, tokens=(1, 2)), Turn(start=4, end=8, tokens=(3,), complete=False)]
    first.commit([says(claim, 1, "ein ", turn=replace(turns[0], tokens=(1,), complete=False))])
    first.commit([says(claim, 2, "Satz.", turn=turns[0])])
    segment = (SEGMENT, {"segment": 0, "text": "ein Satz.", "start_ms": 0, "end_ms": 1000})
    first.commit([SessionCommit(lease=claim.lease, number=3, events=(segment,))])
    first.commit([says(claim, 4, " Und", turn=turns[1], latency_multiplier=2)])
    first.release_sessions([claim.lease])
    assert (await sessions.get(session)).state is SessionState.WAITING

    (taken,) = take(sessions.group(), "g2")
    assert taken.turns == tuple(turns)
    assert (taken.audio_start, taken.audio) == (0, pcm(*range(10)))
    assert (taken.segment, taken.segment_text, taken.segment_start) == (1, " Und", 16_000)
    assert (taken.record.attempt, taken.record.consumed, taken.record.latency_multiplier) == (2, 4, 2)
    assert await sessions.types(session) == [
        "started",
        "text",
        "text",
        "segment",
        "text",
        "waiting",
        "started",
    ]


async def test_the_next_owner_knows_the_last_turn(sessions: Sessions) -> None:
    """If the next owner did not know which turn is the last, it would wait for audio that never arrives."""
    session, first = await sessions.open(), sessions.group()
    await sessions.store.append_audio(session, pcm(1, 2), at=0, end=True)
    (claim,) = take(first)
    turn = Turn(start=0, end=2, tokens=(1,), complete=False, last=True)
    first.commit([says(claim, 1, "ein", turn=turn)])
    first.release_sessions([claim.lease])
    (taken,) = take(sessions.group(), "g2")
    assert taken.turns == (turn,)
    assert taken.record.input_ended


async def test_an_outdated_token_changes_nothing(sessions: Sessions) -> None:
    session, zombie = await sessions.open(), sessions.group()
    (old,) = take(zombie)
    zombie.release_sessions([old.lease])
    (new,) = take(sessions.group(), "g2")
    before = await sessions.store.session_events(session)
    assert zombie.commit([says(old, 1, "twice", end=SessionEnd.FINISHED)]) == [old.lease]
    assert zombie.renew_sessions(GroupId("g1"), [old.lease], measured=SessionsMeasured()) == [old.lease]
    zombie.release_sessions([old.lease])
    assert await sessions.store.session_events(session) == before
    assert (await sessions.get(session)).group == "g2"
    assert new.lease.token != old.lease.token


async def test_a_repeated_commit_is_written_once(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    for _ in range(2):
        assert group.commit([says(claim, 1, "once")]) == []
    assert group.commit([says(claim, 2, " more")]) == []
    texts = [event.data["text"] for event in (await sessions.store.session_events(session))[1:]]
    assert texts == ["once", " more"]


async def test_the_window_slides(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    for at in range(0, 12, 4):
        await sessions.store.append_audio(session, pcm(*range(at, at + 4)), at=at)
    (claim,) = take(group)
    for number, start in enumerate((0, 4, 8), start=1):
        turn = Turn(start=start, end=start + 4, tokens=(start,))
        group.commit(
            [SessionCommit(lease=claim.lease, number=number, turn=turn, keep_from=max(0, start - 4))]
        )
    await sessions.store.append_audio(session, b"", at=12, end=True)
    group.release_sessions([claim.lease])
    (taken,) = take(group)
    assert [turn.start for turn in taken.turns] == [4, 8]
    assert (taken.audio_start, taken.audio) == (4, pcm(*range(4, 12)))
    entries = sessions.driver.client.xlen(sessions.driver.keys.of("session_audio", session))
    assert entries == 3  # two pieces of audio, and the mark that the audio has ended


async def test_a_finished_session_tells_all_of_its_text_and_frees_its_audio(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    group.commit([says(claim, 1, "ein ")])
    group.commit([says(claim, 2, "Wort", end=SessionEnd.FINISHED)])
    record = await sessions.get(session)
    assert (record.state, record.end, record.group) == (SessionState.ENDED, SessionEnd.FINISHED, None)
    last = (await sessions.store.session_events(session))[-1]
    assert (last.type, last.data) == (SessionEventType.ENDED, {"reason": "finished", "text": "ein Wort"})
    assert last.id == record.last_event
    with pytest.raises(SessionEndedError):
        await sessions.store.append_audio(session, pcm(1), at=0)
    assert await sessions.store.sessions("speech") == []
    assert (await sessions.store.close_session(session)).end is SessionEnd.FINISHED


async def test_a_failed_session_says_why(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    error = Cause(reason="session_failed", message='the "model" gave up')
    group.commit([SessionCommit(lease=claim.lease, number=1, end=SessionEnd.FAILED, error=error)])
    assert (await sessions.get(session)).error == error
    assert (await sessions.store.session_events(session))[-1].data["error"]["message"] == error.message


async def test_a_lost_lease_gives_the_session_to_another_group(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group(lease_s=3)
    (claim,) = take(group)
    for _ in range(4):
        sessions.driver.pass_time(2000)
        assert group.renew_sessions(GroupId("g1"), [claim.lease], measured=SessionsMeasured()) == []
    sessions.driver.pass_time(4000)
    assert (await sessions.get(session)).state is SessionState.WAITING
    assert group.renew_sessions(GroupId("g1"), [claim.lease], measured=SessionsMeasured()) == [claim.lease]
    (taken,) = take(sessions.group(), "g2")
    assert taken.record.attempt == 2
    assert (await sessions.store.session_events(session))[1].data == {"reason": "lease_lost"}


async def test_an_outage_of_the_store_ends_no_lease(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group(lease_s=4)
    take(group)
    sessions.limit(timeout_s=1e6)
    sessions.driver.now += 30_000
    sessions.driver.tick()
    assert (await sessions.get(session)).state is SessionState.ACTIVE


@pytest.mark.parametrize("died", [False, True])
async def test_a_group_that_leaves_gives_its_sessions_up(sessions: Sessions, died: bool) -> None:
    session, group = await sessions.open(), sessions.group()
    sessions.driver.register("g1")
    take(group)
    sessions.driver.deregister("g1", died=died)
    assert (await sessions.get(session)).state is SessionState.WAITING
    assert [claim.lease.session for claim in take(sessions.group(), "g2")] == [session]


async def test_a_restarted_group_gives_its_sessions_up(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    sessions.driver.register("g1")
    take(group)
    sessions.driver.register("g1", fresh=True)
    assert (await sessions.get(session)).state is SessionState.WAITING


async def test_a_draining_group_claims_nothing(sessions: Sessions) -> None:
    await sessions.open()
    sessions.driver.register("g1")
    sessions.driver.drain("g1")
    assert take(sessions.group(), "g1") == []
    assert len(take(sessions.group(), "g2")) == 1


async def test_work_on_the_rest_is_not_silence(sessions: Sessions) -> None:
    sessions.limit(timeout_s=10)
    session, group = await sessions.open(), sessions.group(lease_s=1000)
    await sessions.store.append_audio(session, pcm(1), at=0, end=True)
    (claim,) = take(group)
    sessions.driver.pass_time(9000)
    group.commit([says(claim, 1, "a")])
    sessions.driver.pass_time(9000)
    assert (await sessions.get(session)).end is None


async def test_too_many_sessions_are_refused_with_an_estimate(sessions: Sessions) -> None:
    sessions.limit(max_sessions=2)
    first = await sessions.open()
    sessions.driver.pass_time(20_000)
    await sessions.store.close_session(first)
    for _ in range(2):
        await sessions.open()
    with pytest.raises(SessionsFullError, match="2 open sessions") as refused:
        await sessions.open()
    assert refused.value.retry_after_s == 10.0  # sessions take 20 s and two are open, so one ends every 10 s


async def test_a_tenant_with_too_many_sessions_keeps_no_other_tenant_out(sessions: Sessions) -> None:
    """A session that is opened by two calls counts once. A session that has ended does not count."""
    sessions.limit(max_per_tenant=2)
    first = await sessions.open(tenant="a")
    second = sessions.new(tenant="a")
    for _ in range(2):
        await sessions.store.open_session(second)
    with pytest.raises(SessionsFullError, match=r"2 open sessions.*max_sessions_per_tenant") as refused:
        await sessions.open(tenant="a")
    assert refused.value.reason == TENANT_LIMIT
    await sessions.open(tenant="b")
    await sessions.store.close_session(first)
    await sessions.open(tenant="a")


async def test_a_tenants_sessions_are_listed_although_another_tenant_has_a_thousand_older_ones(
    sessions: Sessions,
) -> None:
    sessions.limit(max_sessions=2000)
    for _ in range(SESSION_LIST_MAX):
        await sessions.open(tenant="a")
    own = await sessions.open(tenant="b")
    assert [record.session.id for record in await sessions.store.sessions("speech", tenant="b")] == [own]
    assert len(await sessions.store.sessions("speech")) == SESSION_LIST_MAX


async def test_groups_that_lag_refuse_sessions(sessions: Sessions) -> None:
    full = SessionsMeasured(lag_ms=3000, full=True, latency_multiplier=4)
    first, second = sessions.group(), sessions.group()
    first.renew_sessions(GroupId("g1"), [], measured=full)
    with pytest.raises(SessionsFullError, match="cannot keep up"):
        await sessions.open()
    counted = SessionsMeasured(
        lag_ms=20,
        room=4,
        throughput=SessionsThroughput(audio_s=2.5, tokens=31.25, batches=7.1),
        batches={"decode": {1: 7, 32: 1}, "prefill": {2: 3}},
    )
    second.renew_sessions(GroupId("g2"), [], measured=counted)
    await sessions.open()
    overview = await sessions.store.sessions_overview("speech")
    assert (overview.open, overview.waiting) == (1, 1)
    assert {group.group: group.measured for group in overview.groups} == {
        "g1": full,
        "g2": counted,
    }
    for record in await sessions.store.sessions("speech"):
        await sessions.store.close_session(record.session.id)
    sessions.driver.pass_time(6000)
    assert (await sessions.store.sessions_overview("speech")).groups == ()
    assert sessions.driver.totals() is not None  # metrics can still be read


async def test_open_sessions_are_the_demand(sessions: Sessions) -> None:
    opened = [await sessions.open() for _ in range(5)]
    assert sessions.driver.client.zcard(sessions.driver.keys.single("wanted")) == 2
    sessions.driver.tick()
    view = sessions.driver.view()
    assert (view.demand, view.wanted) == (5, 2)
    for session in opened[1:]:
        await sessions.store.close_session(session)
    assert sessions.driver.client.zcard(sessions.driver.keys.single("wanted")) == 1
    await sessions.store.close_session(opened[0])
    assert sessions.driver.client.zcard(sessions.driver.keys.single("wanted")) == 0


async def test_audio_that_no_model_hears_is_bounded(sessions: Sessions) -> None:
    session = await sessions.open()
    minute = bytes(2 * 16_000 * 60)
    for at in range(10):
        await sessions.store.append_audio(session, minute, at=at * 16_000 * 60)
    with pytest.raises(AudioBacklogError):
        await sessions.store.append_audio(session, pcm(1), at=16_000 * 600)


@pytest.mark.parametrize("name", ["speech_01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense"])
async def test_an_unknown_session_is_no_session(sessions: Sessions, name: str) -> None:
    session = SessionId(name)
    with pytest.raises(SessionUnknownError):
        await sessions.get(session)
    with pytest.raises(SessionUnknownError):
        await sessions.store.append_audio(session, pcm(1), at=0)
    with pytest.raises(SessionUnknownError):
        await sessions.store.close_session(session)
