"""The APIs of InfiniSST (a system for speech translation) and of its scheduler, as InfiniSST's documents show them."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from session_support import float32, noise, pcm16, tone

from daybreak_server.domain.sessions import SessionRecord
from testkit.session_memory import MemorySessions, spoken
from testkit.waiting import wait_until

PAIR = "English -> Chinese"
FORM = "application/x-www-form-urlencoded"


def floats(audio: bytes) -> list[float]:
    values = array("h")
    values.frombytes(audio)
    return [value / 32767 for value in values]


def init(speech, status: int = 200, **fields):
    body = {"agent_type": "InfiniSST", "language_pair": PAIR, "client_id": "user_001", **fields}
    response = speech.client.post("/init", json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_a_whole_session_as_the_documents_show_it(speech):
    answer = init(speech)
    session = answer["session_id"]
    assert (answer["queued"], answer["queue_position"], answer["ray_based"]) == (False, 0, True)
    assert answer["latency_multiplier"] == 2
    status = speech.client.get(f"/queue_status/{session}").json()
    assert (status["session_id"], status["status"], status["queued"]) == (session, "active", False)
    assert status["latency_multiplier"] == 2
    audio = noise(3)
    samples = float32(floats(audio))
    with speech.socket(f"/wss/{session}") as socket:
        assert socket.text() == "READY"
        for first in range(0, len(samples), 4 * 15_360):
            socket.send(samples[first : first + 4 * 15_360])
        early = socket.text()
        socket.send("EOF")
        messages, code = socket.rest()
    assert early + "".join(messages[:-1]) == spoken(audio)
    assert (messages[-1], code) == ("PROCESSING_COMPLETE", 1000)
    assert speech.show(session)["client"] == "user_001"
    deleted = speech.client.post("/delete_session", json={"session_id": session}).json()
    assert (deleted["success"], deleted["status"]) == (True, "ended")


def test_int16_frames_and_other_rates_by_query(speech):
    session = init(speech)["session_id"]
    with speech.socket(f"/wss/{session}?encoding=pcm16&sample_rate=48000") as socket:
        socket.text()
        socket.send(pcm16(tone(1, rate=48_000)))
        socket.send("EOF")
        assert socket.rest()[0][-1] == "PROCESSING_COMPLETE"
    assert speech.show(session)["received_ms"] == 1000


def test_init_takes_its_fields_from_the_query_too(speech):
    query = {
        "agent_type": "InfiniSST",
        "language_pair": "en-de",
        "latency_multiplier": 4,
        "evaluation_mode": "true",
    }
    answer = speech.client.post("/init", params=query).json()
    assert (answer["latency_multiplier"], answer["evaluation_mode"]) == (4, True)
    assert speech.show(answer["session_id"])["target"] == "de"


@pytest.mark.parametrize("send", ["json", "data", "params"])
def test_a_session_is_deleted_by_body_form_or_query(speech, send):
    session = init(speech)["session_id"]
    response = speech.client.post("/delete_session", **{send: {"session_id": session}})
    assert response.json()["success"], response.text
    assert speech.show(session)["end"] == "closed"


def test_a_reset_opens_another_session_of_the_same_client(speech):
    old = init(speech)["session_id"]
    new = speech.client.post("/reset_translation", params={"session_id": old}).json()["session_id"]
    assert speech.show(old)["end"] == "closed"
    shown = speech.show(new)
    assert (shown["client"], shown["target"], shown["latency_multiplier"]) == ("user_001", "zh", 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language_pair": "English -> Klingon"}, "English -> Klingon"),
        ({"language_pair": "Chinese"}, "language pair"),
        ({"language_pair": ""}, "language_pair"),
        ({"latency_multiplier": 0}, "latency_multiplier"),
        ({"latency_multiplier": True}, "latency_multiplier"),
        ({"colour": "red"}, "colour"),
        ({"agent_type": "Foo"}, "agent_type: Input should be 'InfiniSST'"),
    ],
)
def test_init_names_the_field_that_is_wrong(speech, fields, message):
    assert message in init(speech, status=422, **fields)["detail"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (FORM, b'{"session_id": "%s"}', f"Content-Type is '{FORM}', not application/json"),
        (FORM, b' \n["%s"]', f"Content-Type is '{FORM}', not application/json"),
        ("text/plain", b'{"session_id": "%s"}', "Content-Type is 'text/plain', not application/json"),
        (None, b'{"session_id": "%s"}', "Content-Type is missing. Send JSON with Content-Type"),
    ],
)
def test_a_body_of_another_type_is_refused_with_what_to_send(speech, content_type, body, message):
    """Without an explicit type, curl sends any body as a form."""
    session = init(speech)["session_id"]
    headers = {"Content-Type": content_type} if content_type else {}
    answer = speech.client.post("/ping", content=body.replace(b"%s", session.encode()), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert message in answer.json()["detail"]


@pytest.mark.parametrize("send", ["json", "data", "params"])
def test_a_ping_counts_as_activity(speech, send):
    session = init(speech)["session_id"]
    before = speech.store.all()[0].touched_ms
    wait_until(lambda: time.time_ns() // 1_000_000 > before, 60, "the next millisecond")
    answer = speech.client.post("/ping", **{send: {"session_id": session}}).json()
    assert (answer["success"], answer["session_id"], answer["status"]) == (True, session, "active")
    (record,) = speech.store.all()
    assert record.touched_ms > before
    assert record.received == 0


def test_a_session_that_has_ended_cannot_be_kept_alive(speech):
    session = init(speech)["session_id"]
    speech.client.post("/delete_session", json={"session_id": session})
    refused = speech.client.post("/ping", json={"session_id": session})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_unknown_sessions_are_404_and_4404(speech):
    unknown = "speech_01JD0000000000000000000000"
    assert speech.client.get(f"/queue_status/{unknown}").status_code == 404
    for path in ("/delete_session", "/ping", "/reset_translation"):
        assert speech.client.post(path, json={"session_id": unknown}).status_code == 404
    with speech.socket(f"/wss/{unknown}") as socket:
        messages, code = socket.rest()
    assert (messages[0][:17], code) == ("ERROR: not_found:", 4404)


def test_too_many_are_429_and_4429(start_speech):
    speech = start_speech(store=MemorySessions(room=1), http={"max_streams_per_tenant": 1})
    session = init(speech)["session_id"]
    assert init(speech, status=429)["code"] == "sessions_full"
    with speech.socket(f"/wss/{session}") as first:
        first.text()
        with speech.socket(f"/wss/{session}") as second:
            assert second.rest()[1] == 4429


def test_a_client_that_connects_again_gets_the_whole_text_and_the_end(speech):
    session, audio = init(speech)["session_id"], noise(2)
    with speech.socket(f"/wss/{session}") as socket:
        socket.text()
        socket.send(float32(floats(audio)))
        assert spoken(audio).startswith(socket.text())
        wait_until(lambda: speech.show(session)["received_ms"] == 2000, 30, "all audio")
    for ended in (False, True):
        with speech.socket(f"/wss/{session}") as socket:
            if not ended:
                socket.send("EOF")
            messages, code = socket.rest()
        assert (messages[0], "".join(messages[1:-1])) == ("READY", spoken(audio))
        assert (messages[-1], code) == ("PROCESSING_COMPLETE", 1000)


def test_a_client_of_a_closed_session_reads_why_it_ended(speech):
    session = init(speech)["session_id"]
    speech.client.post("/delete_session", json={"session_id": session})
    with speech.socket(f"/wss/{session}") as socket:
        assert socket.rest()[0][-1].startswith("ERROR: session_closed: ")


def test_wrong_frames_are_answered_and_the_session_continues(speech):
    session = init(speech)["session_id"]
    with speech.socket(f"/wss/{session}") as socket:
        socket.text()
        for value in (float("nan"), float("inf"), float("-inf"), 1e30, -9.0):
            socket.send(float32([0.0, value]))
            assert socket.text().startswith("ERROR: invalid_audio: Sample 1 ")
        socket.send("STOP")
        assert "STOP" in socket.text()
        socket.send("PING")
        assert socket.text() == "PONG"
        socket.send("EOF")
        assert socket.rest()[0] == ["PROCESSING_COMPLETE"]


@pytest.mark.parametrize("query", ["sample_rate=16001", "sample_rate=0", "encoding=mp3"])
def test_a_wrong_parameter_of_the_socket_closes_it_and_the_session_stays(speech, query):
    session = init(speech)["session_id"]
    with speech.socket(f"/wss/{session}?{query}") as socket:
        messages, code = socket.rest()
    assert (messages[0].startswith("ERROR: "), code) == (True, 4400)
    assert speech.show(session)["state"] == "active"


def test_frames_of_any_length_are_one_stream_of_samples(speech):
    session, audio = init(speech)["session_id"], noise(1)
    samples = float32(floats(audio))
    with speech.socket(f"/wss/{session}") as socket:
        socket.text()
        for first in range(0, len(samples), 7001):
            socket.send(samples[first : first + 7001])
        socket.send(b"123")  # an incomplete sample at the end is dropped
        socket.send("EOF")
        messages, _ = socket.rest()
    assert "".join(messages[:-1]) == spoken(audio)


def test_a_session_that_waits_for_a_group_has_a_place(start_speech):
    store = MemorySessions()
    store.group = False
    speech = start_speech(store=store)
    sessions = [init(speech)["session_id"] for _ in range(2)]
    shown = [speech.client.get(f"/queue_status/{session}").json() for session in sessions]
    assert [(s["status"], s["queued"], s["queue_position"]) for s in shown] == [
        ("queued", True, 1),
        ("queued", True, 2),
    ]


class Passing(MemorySessions):
    """A store that changes between two reads: the gateway reads a waiting session's record, then the list of sessions.

    The list no longer has this session. If ``takes`` is set, a group has taken the session.
    """

    takes = False

    async def sessions(self, pool: str, *, tenant: str | None = None) -> Sequence[SessionRecord]:
        self.group = self.takes
        return [] if tenant is None else await super().sessions(pool, tenant=tenant)


@pytest.mark.parametrize(("takes", "shown"), [(True, ("active", False, 0)), (False, ("queued", True, 1))])
def test_all_views_of_a_session_agree(start_speech, takes, shown):
    """The field `queued` is true, and the place is at least 1, if and only if the status is `queued`."""
    store = Passing()
    store.group = False
    speech = start_speech(store=store)
    session = init(speech)["session_id"]
    store.takes = takes
    status = speech.client.get(f"/queue_status/{session}").json()
    assert (status["status"], status["queued"], status["queue_position"]) == shown
    assert (init(speech)["queued"], init(speech)["queue_position"] > 0) == (not takes, not takes)


def translate(speech, audio: bytes, status: int = 200, **fields):
    body = {"user_id": "u1", "language_pair": PAIR, "audio_data": floats(audio), "is_final": False, **fields}
    response = speech.client.post("/translate", json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_the_name_of_a_user_may_have_any_characters(speech):
    name = "team a/täm\0 b"
    sent = {"user_id": name, "language_pair": PAIR, "audio_data": floats(noise(0.1))}
    session = speech.client.post("/translate", json=sent).json()["session_id"]
    path = f"/session/{quote(name, safe='')}/en-zh"
    assert speech.client.get(path).json()["session_id"] == session
    assert speech.client.post(f"{path}/reset").json()["success"]
    assert speech.client.get(path).status_code == 404


def test_chunks_in_requests_give_the_text_that_each_adds(speech):
    audio = noise(2)
    half = len(audio) // 2
    first = translate(speech, audio[:half], max_new_tokens=20)
    shown = speech.client.get("/session/u1/en-zh").json()
    assert (shown["session_id"], shown["text"]) == (first["session_id"], first["text"])
    second = translate(speech, audio[half:], is_final=True)
    assert first["text"] + second["text"] == second["full_text"] == spoken(audio)
    assert first["session_id"] == second["session_id"]
    assert speech.client.get("/session/u1/en-zh").status_code == 404
    assert translate(speech, audio[:half])["session_id"] != first["session_id"]


def test_users_and_pairs_have_sessions_of_their_own_and_a_reset_ends_one(speech):
    audio = noise(1)
    ids = {
        translate(speech, audio, **fields)["session_id"]
        for fields in ({}, {"user_id": "u2"}, {"language_pair": "English -> German"})
    }
    assert len(ids) == 3
    assert speech.client.post(f"/session/u1/{PAIR.replace('>', '%3E')}/reset").json()["success"]
    assert speech.client.post("/session/u1/en-zh/reset").status_code == 404
    assert speech.client.get("/session/u1/en-de").json()["status"] == "active"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"audio_data": [1e39]}, "invalid_audio", "is inf"),
        ({"audio_data": [100.0]}, "invalid_audio", "Sample 0"),
        ({"audio_data": ["loud"]}, "invalid_input", "audio_data"),
        ({"max_new_tokens": 0}, "invalid_input", "max_new_tokens"),
        ({"language_pair": "en-fr"}, "invalid_input", "en -> fr"),
    ],
)
def test_translate_names_what_is_wrong(speech, fields, code, message):
    problem = translate(speech, b"", status=422, **fields)
    assert problem["code"] == code
    assert message in problem["detail"]


def test_load_model_says_whether_a_group_has_the_model(speech):
    answer = speech.client.post("/load_model", json={"gpu_id": 0, "language_pair": PAIR}).json()
    assert (answer["success"], answer["pool"], answer["status"]) == (True, "speech", "zero")
    wrong = speech.client.post("/load_model", json={"gpu_id": 0, "language_pair": "en-xx"})
    assert wrong.status_code == 422


def test_a_device_is_one_of_the_groups(start_speech):
    workload = "testkit.session_workload:SPEC"
    pools = {"speech": {"workload": workload, "groups": 2}, "other": {"workload": workload}}
    speech = start_speech(pools=pools, http={"default_pools": {"sessions": "speech"}})

    def load(device: int | bool, status: int) -> str:
        response = speech.client.post("/load_model", json={"gpu_id": device, "language_pair": PAIR})
        assert response.status_code == status, response.text
        return response.text

    load(2, 200)
    assert "There is no device 3. Each group that serves sessions is a device: use 0 to 2." in load(3, 422)
    for wrong in (99, -1, True):
        assert "gpu_id" in load(wrong, 422)


def test_health_has_the_pools_of_sessions(speech):
    health = speech.client.get("/health").json()
    assert health["status"] == "ok"
    assert health["pools"]["speech"]["groups_ready"] == 0
