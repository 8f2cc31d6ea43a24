"""OpenAI's official client sends whole recordings to the gateway, which has the routes of OpenAI's audio API."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator

import openai
import pytest
from session_support import Speech, noise, pcm16, tone

from daybreak_server.api.errors import ApiError
from daybreak_server.api.http.multipart import read_form
from daybreak_server.domain.causes import Cause
from testkit.session_memory import MemorySessions, spoken
from testkit.waiting import wait_until

FIELD = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'


def wav(audio: bytes, rate: int = 16_000) -> tuple[str, bytes]:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(audio)
    return "speech.wav", file.getvalue()


def client_of(speech: Speech) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{speech.api.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture
def client(speech: Speech) -> Iterator[openai.OpenAI]:
    with client_of(speech) as client:
        yield client


def test_a_recording_is_transcribed_whole_and_streamed(speech, client):
    audio = noise(5)
    whole = client.audio.transcriptions.create(model="speech", file=wav(audio), language="en", temperature=0)
    assert whole.text == spoken(audio).strip()
    assert whole.usage.seconds == 5
    events = list(client.audio.transcriptions.create(model="speech", file=wav(audio), stream=True))
    assert "".join(e.delta for e in events if e.type == "transcript.text.delta") == spoken(audio)
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", spoken(audio).strip())


def test_all_other_formats_of_the_answer(client):
    audio = noise(3)
    formats = {
        name: client.audio.transcriptions.create(model="speech", file=wav(audio), response_format=name)
        for name in ("text", "srt", "vtt", "verbose_json")
    }
    text = spoken(audio)
    first = " ".join(text.split()[:4])
    assert formats["text"] == text.strip() + "\n"
    assert formats["srt"].startswith(f"1\n00:00:00,000 --> 00:00:01,920\n{first}\n\n2\n")
    assert formats["vtt"].startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:01.920\n{first}\n")
    verbose = formats["verbose_json"]
    assert (verbose.language, verbose.duration, verbose.segments[0].end) == ("en", 3.0, 1.92)


# OpenAI's client marks `translations` as deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_recording_is_translated_into_english_or_the_language_of_the_extension(speech, client):
    file = wav(noise(1))
    seen = []
    for extra in ({}, {"target_language": "German"}):
        assert client.audio.translations.create(model="speech", file=file, extra_body=extra).text
        seen.append(max(speech.store.all(), key=lambda record: record.opened_ms).session.target)
    assert seen == ["en", "de"]
    verbose = client.audio.translations.create(
        model="speech", file=file, response_format="verbose_json", extra_body={"target_language": "German"}
    )
    # The language of the text, not of the audio.
    assert (verbose.task, verbose.language) == ("translate", "de")


# OpenAI's client marks `translations` as deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_pair_that_the_model_lacks_is_refused_by_name(client):
    with pytest.raises(openai.UnprocessableEntityError, match="en -> French") as caught:
        client.audio.translations.create(
            model="speech", file=wav(noise(1)), extra_body={"target_language": "French"}
        )
    assert (caught.value.code, caught.value.param) == ("invalid_input", "language_pair")


def test_raw_samples_and_other_rates(speech, client):
    samples = pcm16(tone(1, rate=8000))
    raw = client.audio.transcriptions.create(
        model="speech", file=("a.pcm", samples), extra_body={"sample_rate": 8000}
    )
    assert raw.text == client.audio.transcriptions.create(model="speech", file=wav(samples, 8000)).text


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"file": ("a.mp3", b"ID3 and so on")}, openai.APIStatusError, "ffmpeg"),
        ({"model": "unknown"}, openai.NotFoundError, "unknown"),
        ({"response_format": "diarized_json"}, openai.UnprocessableEntityError, "diarized_json"),
        ({"extra_body": {"colour": "red"}}, openai.UnprocessableEntityError, "colour"),
        ({"extra_body": {"sample_rate": "fast"}}, openai.UnprocessableEntityError, "fast"),
        ({"extra_body": {"stream": "perhaps"}}, openai.UnprocessableEntityError, "stream"),
    ],
)
def test_a_wrong_field_is_named_in_openais_shape(client, fields, error, message):
    with pytest.raises(error, match=message):
        client.audio.transcriptions.create(**{"model": "speech", "file": wav(b""), **fields})


def test_a_full_pool_is_a_rate_limit(start_speech):
    speech = start_speech(store=MemorySessions(room=0))
    with client_of(speech) as client, pytest.raises(openai.RateLimitError) as caught:
        client.audio.transcriptions.create(model="speech", file=wav(noise(1)))
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_an_error_of_the_client(speech, client, stream):
    speech.store.broken = Cause(reason="session_failed", message="it broke")
    with pytest.raises(openai.APIError, match="it broke"):
        list(client.audio.transcriptions.create(model="speech", file=wav(noise(1)), stream=stream))


def test_a_client_that_goes_away_ends_its_session(start_speech):
    store = MemorySessions()
    store.group = False
    speech = start_speech(store=store)
    with client_of(speech) as client:
        stream = client.audio.transcriptions.create(model="speech", file=wav(noise(1)), stream=True)
        wait_until(lambda: [r for r in store.all() if r.received], 30, "audio")
        stream.close()
    wait_until(lambda: store.all()[0].end, 30, "the end of the session")
    assert store.all()[0].end == "closed"


def test_a_recording_that_takes_too_long_is_refused_and_its_session_ends(start_speech):
    store = MemorySessions()
    store.group = False
    speech = start_speech(store=store, router={"timeout_s": 0.5})
    with client_of(speech) as client, pytest.raises(openai.InternalServerError) as caught:
        client.audio.transcriptions.create(model="speech", file=wav(noise(1)))
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_passed")
    assert store.all()[0].end == "closed"


def test_forms_are_read_as_they_are_sent():
    """Content may hold line breaks and dashes, and file names may hold quotes."""
    content = b"\r\n--\r\n--x--\r\n\x00\xff"
    file = b'--x y\r\nContent-Disposition: form-data; name="file"; filename="a\\"b.wav"\r\nContent-Type: audio/wav'
    model = b'\r\n--x y\r\nContent-Disposition: form-data; name="model"\r\n\r\nspeech\r\n--x y--\r\n'
    body = file + b"\r\n\r\n" + content + model
    form = read_form(body, 'multipart/form-data; boundary="x y"')
    assert (form["file"].content, form["file"].filename) == (content, 'a"b.wav')
    assert (form["model"].content, form["model"].filename) == (b"speech", None)


def test_a_form_may_have_a_hundred_fields():
    form = read_form(FIELD * 100 + b"--b--", "multipart/form-data; boundary=b")
    assert [field.content for field in form.values()] == [b"1"]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{}", "application/json", "not a form"),
        (b"", "multipart/form-data", "names no boundary"),
        (b"--b\r\n\r\n1\r\n", "multipart/form-data; boundary=b", "cut off"),
        (b"--b\r\n\r\n1\r\n--b--", "multipart/form-data; boundary=b", "no name"),
        (FIELD * 101 + b"--b--", "multipart/form-data; boundary=b", "more than 100"),
    ],
)
def test_a_broken_form_is_refused(body, kind, message):
    with pytest.raises(ApiError, match=message):
        read_form(body, kind)
