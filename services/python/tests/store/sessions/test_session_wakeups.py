"""A group reads new audio at once, even the audio of a session that it has only just claimed."""

from __future__ import annotations

import pytest

from tests.store.sessions.conftest import Sessions, pcm, take


async def test_audio_of_a_session_that_the_reader_does_not_know_yet_is_not_forgotten(
    sessions: Sessions,
) -> None:
    """The group has claimed two sessions. It asks for the audio of one of them, and then for the audio of both."""
    known, new = await sessions.open(), await sessions.open()
    group = sessions.group()
    claims = {claim.lease.session: claim.lease for claim in take(group)}
    assert group.read_audio({claims[known]: 0}, wait_s=0) == []
    await sessions.store.append_audio(new, pcm(1), at=0, end=True)
    # This call returns at once, so that the group can ask for the audio of both sessions.
    assert group.read_audio({claims[known]: 0}, wait_s=30) == []
    (news,) = group.read_audio({claims[known]: 0, claims[new]: 0}, wait_s=0)
    assert (news.session, news.audio, news.input_ended) == (new, pcm(1), True)


async def test_a_look_at_all_sessions_forgets_no_announcement(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group reads the announcement of new audio, then looks at all sessions, and only then asks for this audio."""
    monkeypatch.setattr("daybreak_server.adapters.redis.sessions.work.CHECK_S", 3600.0)
    group = sessions.group()
    await sessions.open()
    (known,) = take(group)
    assert group.read_audio({known.lease: 0}, wait_s=0) == []
    await sessions.open()
    (claim,) = take(group)
    await sessions.store.append_audio(claim.lease.session, b"\1\0", at=0)
    assert group.read_audio({known.lease: 0}, wait_s=0) == []  # reads the announcement
    group._check_at = 0.0
    assert group.read_audio({known.lease: 0}, wait_s=0) == []
    (news,) = group.read_audio({known.lease: 0, claim.lease: 0}, wait_s=1)
    assert news.audio == b"\1\0"
