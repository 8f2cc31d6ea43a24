"""Daybreak's own API of sessions: open, stream, continue after a broken connection, end."""

from __future__ import annotations

from itertools import count

import pytest
from session_support import POOLS, float32, noise, pcm16, tone

from daybreak_server.domain.causes import Cause
from testkit.session_memory import MemorySessions, spoken
from testkit.waiting import wait_until

HALF_S = 16_000


def texts(messages: list) -> str:
    return "".join(m["data"]["text"] for m in messages if m["type"] == "text")


def test_a_session_turns_audio_into_events_and_ends_with_all_of_its_text(speech):
    session = speech.open(target="German", client="stand 7")
    assert (session["source"], session["target"], session["client"]) == ("en", "de", "stand 7")
    audio = noise(3)
    with speech.stream(session["id"]) as socket:
        ready = socket.get()
        assert (ready["type"], ready["send_from"], ready["session"]["id"]) == ("ready", 0, session["id"])
        for first in range(0, len(audio), 6400):
            socket.send(audio[first : first + 6400])
        socket.send({"type": "end"})
        messages, code = socket.rest()
    assert code == 1000
    assert [m["data"]["attempt"] for m in messages if m["type"] == "started"] == [1]
    assert texts(messages) == spoken(audio) == messages[-1]["data"]["text"]
    assert (messages[-1]["type"], messages[-1]["data"]["reason"]) == ("ended", "finished")
    shown = speech.show(session["id"])
    assert (shown["state"], shown["end"], shown["received_ms"]) == ("ended", "finished", 3000)
    assert shown["input_ended"]


def test_text_comes_before_the_audio_ends(speech):
    with speech.stream(speech.open()["id"]) as socket:
        socket.send(noise(1))
        assert socket.until("text")["data"]["audio_ms"] == 480


def test_a_client_that_connects_again_continues_without_loss_or_repeat(speech):
    session, audio = speech.open()["id"], noise(4)
    with speech.stream(session) as socket:
        socket.get()
        socket.send(audio[: 3 * HALF_S])
        seen = [socket.until("text") for _ in range(2)]
    with speech.stream(session, after=seen[-1]["id"]) as socket:
        start = socket.get()["send_from"]
        assert start == 3 * HALF_S // 2
        socket.send(audio[start * 2 :])
        socket.send({"type": "end"})
        messages, _ = socket.rest()
    assert texts(seen) + texts(messages) == spoken(audio)


def test_an_event_that_the_session_does_not_have_yet_counts_as_its_newest(speech):
    session, audio = speech.open()["id"], noise(2)
    with speech.stream(session, after="99999999999999-0") as socket:
        socket.send(audio)
        socket.send({"type": "end"})
        messages, code = socket.rest()
    assert (texts(messages), messages[-1]["type"], code) == (spoken(audio), "ended", 1000)


def test_audio_that_is_sent_again_counts_once(speech):
    """If the client uses another sample rate than the journal, it may send some samples again after a resume."""
    session, rate = speech.open()["id"], 48_000
    samples = tone(4, rate=rate, hertz=1000)
    whole = speech.open()["id"]
    with speech.stream(whole, sample_rate=rate) as socket:
        socket.send(pcm16(samples))
        socket.send({"type": "end"})
        socket.rest()
    with speech.stream(session, sample_rate=rate) as socket:
        socket.send(pcm16(samples[:90_001]))
        socket.until("received")
    with speech.stream(session, sample_rate=rate) as socket:
        start = socket.get()["send_from"]
        assert 0 < start < 90_001
        socket.send(pcm16(samples[start:]))
        socket.send({"type": "end"})
        socket.rest()
    assert speech.store.audio(session) == speech.store.audio(whole)


def test_a_refused_frame_leaves_no_trace(speech):
    session = speech.open()["id"]
    good = tone(1)
    bad = [*good[:100], float("nan"), *good[101:]]
    with speech.stream(session, encoding="float32") as socket:
        socket.send(float32(good[:8000]))
        for wrong, message in (
            (bad, "Sample 100"),
            ([3000.0], "pcm16"),
            ([float("-inf")], "-inf"),
            ([9.5], "between"),
        ):
            socket.send(float32(wrong))
            error = socket.until("error")
            assert (error["code"], error["fatal"]) == ("invalid_audio", False)
            assert message in error["message"]
        socket.send(float32(good[8000:]))
        socket.send({"type": "end"})
        assert socket.rest()[1] == 1000
    assert speech.store.audio(session) == pcm16(good)


def test_audio_after_the_end_is_refused_and_the_text_comes(start_speech):
    store = MemorySessions()
    store.group = False
    speech = start_speech(store=store)
    session, audio = speech.open()["id"], noise(1)
    with speech.stream(session) as socket:
        socket.send(audio)
        for frame in ({"type": "end"}, audio, {"type": "end"}, audio):
            socket.send(frame)
        errors = [socket.until("error") for _ in range(2)]
        assert [(error["code"], error["fatal"]) for error in errors] == [("conflict", False)] * 2
        store.group = True
        speech.show(session)
        messages, code = socket.rest()
    assert (messages[-1]["data"]["text"], code) == (spoken(audio), 1000)


def test_floats_that_are_too_loud_are_clipped(speech):
    session = speech.open()["id"]
    with speech.stream(session, encoding="float32") as socket:
        socket.send(float32([1.5, -1.5, 8.0, 0.0]))
        socket.send({"type": "end"})
        socket.rest()
    assert speech.store.audio(session) == pcm16([1, -32768 / 32767, 1, 0])


def test_a_sample_may_be_split_between_frames(speech):
    session, audio = speech.open()["id"], noise(1)
    with speech.stream(session) as socket:
        for first in range(0, len(audio), 4999):
            socket.send(audio[first : first + 4999])
        socket.send({"type": "end"})
        socket.rest()
    assert speech.store.audio(session) == audio


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"sample_rate": "16001"}, 4400, "sample_rate"),
        ({"encoding": "mp3"}, 4400, "encoding"),
        ({"after": "soon"}, 4400, "event id"),
    ],
)
def test_a_wrong_parameter_closes_the_stream_and_is_named(speech, query, code, field):
    with speech.stream(speech.open()["id"], **query) as socket:
        messages, closed = socket.rest()
    assert closed == code
    assert field in messages[0]["message"]
    assert messages[0]["fatal"]


@pytest.mark.parametrize("text", ["hello", '{"type": "dance"}', "[1]", "{"])
def test_an_unknown_text_frame_is_refused_and_the_session_continues(speech, text):
    with speech.stream(speech.open()["id"]) as socket:
        socket.send(text)
        assert "end" in socket.until("error")["message"]
        socket.send({"type": "close"})
        messages, code = socket.rest()
    assert (messages[-1]["data"]["reason"], code) == ("closed", 1000)


def test_a_frame_that_is_too_large_closes_the_connection_but_not_the_session(speech):
    session = speech.open()["id"]
    with speech.stream(session) as socket:
        socket.get()
        socket.send(bytes((1 << 20) + 2))
        assert socket.rest()[1] == 1009
    assert speech.show(session)["state"] == "active"


def test_an_unknown_session_is_4404_and_a_deleted_one_stays_readable(speech):
    for session in ("speech_01JD0000000000000000000000", "other_01JD0000000000000000000000", "x"):
        assert speech.show(session, status=404)["code"] == "not_found"
        with speech.stream(session) as socket:
            assert socket.rest()[1] == 4404
    session = speech.open()["id"]
    assert speech.client.delete(f"/v1/sessions/{session}").json()["end"] == "closed"
    assert speech.client.delete(f"/v1/sessions/{session}").json()["end"] == "closed"
    with speech.stream(session, after=speech.show(session)["last_event"]) as socket:
        assert [m["type"] for m in socket.rest()[0]] == ["ready"]


def test_another_tenant_sees_no_session(speech):
    session = speech.open()["id"]
    response = speech.client.get(f"/v1/sessions/{session}", headers={"Daybreak-Tenant": "other"})
    assert response.status_code == 404
    listed = speech.client.get("/v1/sessions", headers={"Daybreak-Tenant": "other"}).json()["data"]
    assert listed == []
    assert [s["id"] for s in speech.client.get("/v1/sessions?pool=speech").json()["data"]] == [session]


def test_sessions_of_all_pools_are_listed_oldest_first(start_speech, monkeypatch):
    monkeypatch.setattr("testkit.session_memory._now_ms", count(1).__next__)
    speech = start_speech({**POOLS, "talks": POOLS["speech"]})
    opened = [speech.open(pool=pool)["id"] for pool in ("talks", "speech", "talks", "speech")]
    assert [s["id"] for s in speech.client.get("/v1/sessions").json()["data"]] == opened
    assert [s["id"] for s in speech.client.get("/v1/sessions?pool=talks").json()["data"]] == opened[::2]


def test_a_pair_that_the_model_lacks_is_refused_by_name(speech):
    problem = speech.open(target="French", status=422)
    assert problem["code"] == "invalid_input"
    assert "en -> French" in problem["detail"]
    assert "English -> German, English -> Chinese, English -> English" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"latency_multiplier": 0},
        {"latency_multiplier": 9},
        {"client": "x" * 201},
        {"colour": 1},
        {"target": 7},
    ],
)
def test_a_wrong_field_is_named(speech, body):
    problem = speech.open(status=422, **body)
    assert next(iter(body)) in problem["errors"][0]["field"]


def test_unknown_pools_and_several_pools_are_refused_by_name(start_speech):
    spec = {"workload": "testkit.session_workload:SPEC"}
    speech = start_speech(pools={"one": spec, "two": spec})
    assert "one, two" in speech.open(status=404)["detail"]
    assert "one, two" in speech.open(pool="echo", status=404)["detail"]
    assert speech.open(pool="two")["pool"] == "two"
    assert start_speech(pools={"one": spec, "two": spec}, http={"default_pools": {"sessions": "one"}}).open()[
        "pool"
    ] == ("one")
    assert "No pool serves sessions" in start_speech(pools={}).open(status=404)["detail"]


def test_the_same_idempotency_key_returns_the_same_session(speech):
    headers = {"Idempotency-Key": "k-1"}
    first = speech.open(headers=headers)
    assert speech.open(headers=headers)["id"] == first["id"]
    assert speech.open(headers=headers, target="German")["id"] == first["id"]  # another name of the language
    for other in ({"target": "zh"}, {"latency_multiplier": 2}, {"client": "me"}, {"options": {"a": 1}}):
        assert speech.open(headers=headers, status=422, **other)["code"] == "idempotency_mismatch"
    assert speech.open()["id"] != first["id"]


def test_a_full_pool_answers_with_an_estimate(start_speech):
    speech = start_speech(store=MemorySessions(room=1))
    speech.open()
    response = speech.client.post("/v1/sessions", json={"target": "de"})
    assert (response.status_code, response.json()["code"]) == (429, "sessions_full")
    assert response.headers["retry-after"] == "7"


def test_a_tenant_has_a_bounded_number_of_sessions_and_streams(start_speech):
    speech = start_speech(
        store=MemorySessions(per_tenant=1), http={"max_sessions_per_tenant": 1, "max_streams_per_tenant": 1}
    )
    session = speech.open(headers={"Idempotency-Key": "first"})["id"]
    assert speech.open(headers={"Idempotency-Key": "first"})["id"] == session
    problem = speech.open(status=429)
    assert (problem["code"], problem["limit"]) == ("too_many_streams", "sessions_per_tenant")
    with speech.stream(session) as first:
        first.get()
        with speech.stream(session) as second:
            messages, code = second.rest()
    assert (messages[0]["code"], code) == ("too_many_streams", 4429)


def test_a_client_that_sends_faster_than_the_model_works_is_held_back(start_speech):
    store = MemorySessions()
    store.group = False
    speech = start_speech(store=store)
    session = speech.open()["id"]
    minute = bytes(16_000 * 2)
    with speech.stream(session) as socket:
        for _ in range(70):
            socket.send(minute)
        wait_until(lambda: speech.show(session)["received_ms"] >= 60_000, 60, "a minute of audio")
        assert speech.show(session)["received_ms"] == 60_000
        store.group = True
        wait_until(lambda: speech.show(session)["received_ms"] == 70_000, 60, "the rest")


def test_a_store_that_fails_for_a_while_is_not_seen(speech):
    session, audio = speech.open()["id"], noise(2)
    with speech.stream(session) as socket:
        socket.get()
        socket.send(audio[:HALF_S])
        socket.until("text")
        speech.store.down = True
        socket.send(audio[HALF_S:])
        socket.send({"type": "end"})
        speech.store.down = False
        messages, code = socket.rest()
    assert (messages[-1]["data"]["text"], code) == (spoken(audio), 1000)


def test_a_session_that_the_model_cannot_continue_says_why(speech):
    session = speech.open()["id"]
    with speech.stream(session) as socket:
        socket.until("started")
        speech.store.broken = Cause(reason="session_failed", message="it broke")
        socket.send(noise(1))
        messages, code = socket.rest()
    assert messages[-1]["data"]["error"] == {"code": "session_failed", "message": "it broke"}
    assert (code, speech.show(session)["error"]["message"]) == (1000, "it broke")


def test_a_server_that_stops_closes_the_streams_and_keeps_the_sessions(speech):
    session = speech.open()["id"]
    with speech.stream(session) as socket:
        socket.until("started")
        speech.api.server.should_exit = True
        assert socket.rest()[1] == 1012
