"""Clients do not wait for groups that cannot load their model. The clients get the reason at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from session_support import noise

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from testkit.valkey import Server

CAUSE = Cause(reason=Reason.MODEL_MISSING, message="ModelMissingError: /models/empty has no config.json")


@pytest.fixture
def queue(valkey: Server) -> Iterator[RedisQueue]:
    """The queue of the pool, as its groups use it."""
    queue = RedisQueue(valkey.url, pool="speech")
    yield queue
    queue.close()


def test_a_new_session_is_refused_with_the_reason(start_speech, queue):
    queue.report_failure(CAUSE)
    speech = start_speech()
    problem = speech.open(status=503)
    assert (problem["code"], problem["retry_after_s"]) == ("not_ready", 120)
    assert CAUSE.message in problem["detail"]
    file = {"file": ("a.pcm", noise(1))}
    answer = speech.client.post("/v1/audio/translations", data={"model": "speech"}, files=file)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert speech.store.all() == []


def test_a_session_that_waits_gets_the_reason_and_ends(speech, queue):
    speech.store.group = False
    session = speech.open()["id"]
    with speech.stream(session) as socket:
        assert socket.until("ready")
        queue.report_failure(CAUSE)
        error = socket.until("error")
        assert (error["code"], error["fatal"]) == ("not_ready", True)
        assert CAUSE.message in error["message"]
        assert socket.rest()[1] == 1013
    assert speech.show(session)["end"] == "closed"


@pytest.mark.parametrize("reason", [Reason.MODEL_MISSING, Reason.RANKS_FAIL])
def test_sessions_wait_for_a_group_that_may_start(start_speech, queue, reason):
    """Sessions wait while a group starts again, and after a failure that may be temporary."""
    queue.report_failure(Cause(reason=reason, message="why"))
    if reason is Reason.MODEL_MISSING:
        queue.register(GroupRecord(id=new_group_id(), state=GroupState.STARTING), ttl_s=60)
    assert start_speech().open()["state"]
