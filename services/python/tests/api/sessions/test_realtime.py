"""Tests of two realtime dialects: that of OpenAI, with its official client, and that of vLLM."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from session_support import noise, pcm16, tone

from daybreak_server.api.sessions.realtime.transcription import TranscriptionDialect
from testkit.session_memory import MemorySessions, spoken
from testkit.waiting import wait_until

pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used:DeprecationWarning"  # OpenAI's client is written for websockets < 17.1
)
TRANSCRIPTION = {
    "type": "transcription",
    "audio": {"input": {"transcription": {"model": "speech", "language": "en"}}},
}


def b64(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


@contextmanager
def connect(speech: Any, **query: Any) -> Iterator[Any]:
    """Connect with OpenAI's own client."""
    with (
        openai.OpenAI(base_url=f"{speech.api.url}/v1", api_key="none", max_retries=0) as client,
        client.realtime.connect(**{"model": "speech", **query}) as connection,
    ):
        yield connection


def until(connection: Any, kind: str) -> tuple[list[Any], Any]:
    """The events before the first event of the type ``kind``, and that event."""
    seen = []
    while True:
        event = connection.recv()
        if event.type == kind:
            return seen, event
        seen.append(event)


def open_session(speech: Any) -> Any:
    return wait_until(lambda: speech.client.get("/v1/sessions").json()["data"], 30, "a session")[0]


def test_openais_client_transcribes_24_khz_sentence_by_sentence(speech):
    samples = tone(6, rate=24_000, hertz=300)
    with connect(speech) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session=TRANSCRIPTION)
        updated = connection.recv()
        assert updated.type == "session.updated"
        for first in range(0, len(samples), 4800):
            connection.input_audio_buffer.append(audio=b64(pcm16(samples[first : first + 4800])))
        seen, done = until(connection, "conversation.item.input_audio_transcription.completed")
        deltas = [e for e in seen if e.type.endswith("transcription.delta")]
        assert "".join(d.delta for d in deltas) == done.transcript
        assert {d.item_id for d in deltas} == {done.item_id}
        kinds = [e.type for e in seen]
        assert kinds[-2:] == ["input_audio_buffer.committed", "conversation.item.added"]
        assert done.usage.seconds == pytest.approx(1.92)
        session = open_session(speech)
        assert (session["source"], session["target"]) == ("en", "en")
        following, second = until(connection, "conversation.item.input_audio_transcription.completed")
        assert second.item_id != done.item_id
        committed = next(e for e in following if e.type == "input_audio_buffer.committed")
        assert committed.previous_item_id == done.item_id
    wait_until(lambda: speech.show(session["id"]).get("end") == "closed", 30, "the session to be closed")


def test_without_turn_detection_a_commit_ends_an_item(speech):
    session = {**TRANSCRIPTION, "target_language": "de"}
    session["audio"] = {"input": {**TRANSCRIPTION["audio"]["input"], "turn_detection": None}}
    first, second = noise(1, seed=1), noise(1, seed=2)
    with connect(speech) as connection:
        connection.recv()
        session["audio"]["input"]["format"] = {"type": "audio/pcm", "rate": 16_000}
        connection.send({"type": "session.update", "session": session})
        completed = []
        for audio in (first, second):
            connection.input_audio_buffer.append(audio=b64(audio))
            connection.input_audio_buffer.commit()
        for _ in range(2):
            _, event = until(connection, "conversation.item.input_audio_transcription.completed")
            completed.append(event)
        found = open_session(speech)
        assert found["target"] == "de"
    silence = bytes(5 * 16_000)
    whole = spoken(first + silence + second + silence)
    texts = [event.transcript for event in completed]
    assert whole.startswith("".join(texts))
    assert all(len(text.split()) >= 3 for text in texts)
    assert [event.usage.seconds for event in completed] == [1.0, 1.0]
    assert completed[0].item_id != completed[1].item_id


def test_a_bug_beside_the_conversation_ends_the_connection(speech, monkeypatch, caplog):
    """If the connection stayed open, the client would wait for an item that is never completed."""

    async def fail(*_: Any) -> bool:
        raise RuntimeError("a bug of this test")

    monkeypatch.setattr(TranscriptionDialect, "_complete_processed", fail)
    session = {"audio": {"input": {**TRANSCRIPTION["audio"]["input"], "turn_detection": None}}}
    with speech.socket("/v1/realtime") as socket:
        socket.send({"type": "session.update", "session": session})
        socket.send({"type": "input_audio_buffer.append", "audio": b64(noise(1))})
        socket.send({"type": "input_audio_buffer.commit"})
        assert socket.until("error")["error"]["code"] == "internal"
        assert socket.rest()[1] == 1011
    assert "a bug of this test" in caplog.text


def test_a_translation_session_streams_deltas_and_closes(speech):
    audio = noise(2)
    with speech.socket("/v1/realtime/translations?model=speech") as socket:
        assert socket.get()["type"] == "session.created"
        form = {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}, "output": {"language": "de"}}
        socket.send({"type": "session.update", "session": {"audio": form}})
        assert socket.get()["session"]["type"] == "translation"
        socket.send({"type": "session.input_audio_buffer.append", "audio": b64(audio)})
        socket.send({"type": "session.close"})
        messages, code = socket.rest()
    deltas = [m for m in messages if m["type"] == "session.output_transcript.delta"]
    assert "".join(m["delta"] for m in deltas) == spoken(audio)
    assert deltas[0]["elapsed_ms"] == 480
    assert (messages[-1]["type"], code) == ("session.closed", 1000)


def test_the_type_translation_chooses_the_dialect_on_the_common_route_too(speech):
    with speech.socket("/v1/realtime?model=speech") as socket:
        socket.get()
        session = {"type": "translation", "audio": {"output": {"language": "Chinese"}}}
        socket.send({"type": "session.update", "session": session})
        assert socket.get()["session"]["object"] == "realtime.translation_session"


def test_vllms_dialect_as_its_example_client_speaks_it(speech):
    audio = noise(2)
    with speech.socket("/v1/realtime") as socket:
        created = socket.get()
        assert (created["type"], created["id"][:5]) == ("session.created", "sess_")
        socket.send({"type": "session.update", "model": "speech"})
        for _ in range(2):
            socket.send({"type": "input_audio_buffer.commit"})
            for first in range(0, len(audio), 4096):
                socket.send({"type": "input_audio_buffer.append", "audio": b64(audio[first : first + 4096])})
            socket.send({"type": "input_audio_buffer.commit", "final": True})
            text = ""
            while (event := socket.get())["type"] == "transcription.delta":
                text += event["delta"]
            assert event["type"] == "transcription.done"
            assert text == event["text"] == spoken(audio)
            assert event["usage"]["seconds"] == 2.0


def test_vllms_dialect_translates_with_an_extension(speech):
    with speech.socket("/v1/realtime") as socket:
        socket.get()
        socket.send({"type": "session.update", "model": "speech", "target_language": "zh"})
        socket.send({"type": "input_audio_buffer.append", "audio": b64(noise(1))})
        socket.until("transcription.delta")
        assert open_session(speech)["target"] == "zh"


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        (
            {"type": "session.update", "session": {"type": "transcription", "audio": 7}},
            "invalid_input",
            "object",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "x"}}}}},
            "no_such_pool",
            "'x'",
        ),
        (
            {"type": "session.update", "session": {**TRANSCRIPTION, "target_language": "fr"}},
            "invalid_input",
            "en -> fr",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
            "invalid_input",
            "audio/pcm",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 999}}}}},
            "invalid_input",
            "999",
        ),
        ({"type": "session.update", "session": {"type": "translations"}}, "invalid_input", "'translations'"),
        ({"type": "session.update", "session": {"type": 7}}, "invalid_input", "session.type"),
        ('{"type": "session.update", "session": {"audio": {"input": {"x": NaN}}}}', "invalid_input", "JSON"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_input", "session.update"),
        ({"type": "response.create"}, "invalid_input", "response.create"),
        ({"kind": 1}, "invalid_input", "type"),
        ("nonsense", "invalid_input", "JSON"),
        (b"\0\0", "invalid_input", "base64"),
    ],
)
def test_a_wrong_event_is_answered_with_an_error_and_the_connection_continues(speech, event, code, message):
    with speech.socket("/v1/realtime?model=speech") as socket:
        socket.get()
        socket.send(event)
        error = socket.get()
        assert (error["type"], error["error"]["code"]) == ("error", code)
        assert message in error["error"]["message"]
        socket.send({"type": "session.update", "session": TRANSCRIPTION, "event_id": "mine"})
        assert socket.get()["type"] == "session.updated"
        socket.send({"type": "input_audio_buffer.append", "audio": "%%", "event_id": "mine-2"})
        error = socket.get()["error"]
        assert (error["code"], error["event_id"]) == ("invalid_audio", "mine-2")


def test_languages_cannot_change_once_audio_has_come(speech):
    with speech.socket("/v1/realtime") as socket:
        socket.get()
        socket.send({"type": "session.update", "model": "speech"})
        socket.send({"type": "input_audio_buffer.append", "audio": b64(noise(1))})
        socket.until("transcription.delta")
        socket.send({"type": "session.update", "model": "speech", "target_language": "zh"})
        error = socket.until("error")
        assert (error["code"], error["error"][:11]) == ("conflict", "The session")


def test_a_full_pool_closes_the_connection(start_speech):
    speech = start_speech(store=MemorySessions(room=0))
    with speech.socket("/v1/realtime") as socket:
        socket.get()
        socket.send(json.dumps({"type": "session.update", "model": "speech"}))
        socket.send({"type": "input_audio_buffer.append", "audio": ""})
        messages, code = socket.rest()
    assert (messages[-1]["code"], code) == ("sessions_full", 4429)
    assert messages[-1]["error"].startswith("The pool takes no further session now.")


@pytest.mark.parametrize("uid", [None, "5c1f"])
def test_a_refusal_by_a_full_pool_has_the_wait_of_whisper_live_too(start_speech, uid):
    speech = start_speech(store=MemorySessions(room=0))  # this store estimates a wait of 7 s
    with connect(speech, extra_query={"uid": uid} if uid else {}) as connection:
        created = connection.recv()
        connection.session.update(session=TRANSCRIPTION)
        connection.recv()
        connection.input_audio_buffer.append(audio=b64(noise(1)))
        refusal = connection.recv()
    assert (refusal.type, refusal.error.code) == ("error", "sessions_full")
    wait = {"uid": uid or created.session.id, "status": "WAIT", "message": pytest.approx(7 / 60)}
    assert wait.items() <= refusal.to_dict().items()


def test_other_errors_have_no_wait(speech):
    with speech.socket("/v1/realtime?model=speech") as socket:
        socket.get()
        socket.send({"type": "response.create"})
        assert not {"uid", "status", "message"} & socket.get().keys()


def test_a_later_update_needs_only_the_fields_that_change(speech):
    with connect(speech) as connection:
        connection.recv()
        first = {**TRANSCRIPTION, "target_language": "German"}
        first["audio"] = {"input": {**first["audio"]["input"], "turn_detection": None}}
        connection.session.update(session=first)
        shown = connection.recv().session.to_dict()
        assert (shown["target_language"], shown["model"]) == ("German", "speech")
        assert shown["audio"]["input"]["format"] == {
            "type": "audio/pcm",
            "rate": 24_000,
        }  # the default is shown
        connection.send({"type": "session.update", "session": {"target_language": "Chinese"}})
        shown = connection.recv().session.to_dict()
        assert shown["target_language"] == "Chinese"
        assert shown["audio"]["input"]["transcription"] == {"model": "speech", "language": "en"}
        connection.input_audio_buffer.append(audio=b64(pcm16(tone(1, rate=24_000, hertz=300))))
        wait_until(lambda: speech.client.get("/v1/sessions").json()["data"], 30, "a session")
        assert open_session(speech)["target"] == "zh"
        connection.input_audio_buffer.commit()  # a commit still ends an item
        assert until(connection, "input_audio_buffer.committed")


def test_audio_before_the_first_update_is_refused_with_the_next_step(speech):
    with connect(speech) as connection:
        connection.recv()
        connection.input_audio_buffer.append(audio=b64(noise(1)))
        error = connection.recv().error
        assert (error.code, error.message.split(",")[0]) == (
            "invalid_input",
            "Send session.update before input_audio_buffer.append",
        )
