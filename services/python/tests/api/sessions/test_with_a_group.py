"""Tests all session interfaces with a real store and group: ends of sessions, and changes of batching settings."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from api_support import Serving, make_settings
from session_support import RATE, Socket, Speech, noise
from test_infinisst import init

from testkit.valkey import Server
from testkit.waiting import wait_until
from tests.engines.sessions.conftest import POOL, Group
from verification.faults.sessions.speech import expected_text, float32

BLOCK = RATE * 48 // 100
"""How many samples a turn has."""
OPTIONS = {"prefill_ms": 10, "decode_ms": 10}


@pytest.fixture(scope="module")
def real(valkey_session: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speech]:
    """A gateway, and a group in a process of its own. Each turn has one block, however slow the machine is."""
    with valkey_session.client() as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("group")
    pools = {POOL: {"workload": POOL, "options": OPTIONS, "sessions": {"max_latency_multiplier": 1}}}
    settings = make_settings(pools=pools, redis={"url": valkey_session.url}, data_dir=str(folder))
    with Serving(valkey_session, folder, 0, settings) as api:
        group = Group(settings, folder)
        try:
            speech = Speech(api, store=None)  # type: ignore[arg-type]
            wait_until(lambda: speech.client.get("/ray/stats").json()["groups"], 60, "the group")
            yield speech
        finally:
            group.ask_to_leave()
            group.kill()
            print(group.log.read_text()[-6000:])


def is_processed(speech: Speech, session: str, samples: int) -> bool:
    return bool(speech.show(session)["consumed_ms"] == samples * 1000 // RATE)


def end_native(speech: Speech, audio: bytes, *, late: bool) -> str:
    session = speech.open()["id"]
    with speech.stream(session) as socket:
        if audio:
            socket.send(audio)
        if late:
            wait_until(
                lambda: is_processed(speech, session, len(audio) // 2), 60, "all audio to be processed"
            )
        socket.send({"type": "end"})
        messages, code = socket.rest()
    assert (messages[-1]["type"], messages[-1]["data"]["reason"], code) == ("ended", "finished", 1000)
    text = "".join(message["data"]["text"] for message in messages if message["type"] == "text")
    assert messages[-1]["data"]["text"] == text
    return text


def end_infinisst(speech: Speech, audio: bytes, *, late: bool) -> str:
    session = init(speech, language_pair="English -> German", latency_multiplier=1)["session_id"]
    with speech.socket(f"/wss/{session}") as socket:
        assert socket.text() == "READY"
        if audio:
            socket.send(float32(audio))
        if late:
            wait_until(
                lambda: is_processed(speech, session, len(audio) // 2), 60, "all audio to be processed"
            )
        socket.send("EOF")
        messages, code = socket.rest()
    assert (messages[-1], code) == ("PROCESSING_COMPLETE", 1000)
    return "".join(messages[:-1])


def realtime_session(speech: Speech) -> str:
    """The session behind the only realtime connection."""
    (session,) = speech.client.get("/v1/sessions").json()["data"]
    return str(session["id"])


def end_realtime(speech: Speech, audio: bytes, *, late: bool, vllm: bool) -> str:
    path = "/v1/realtime" if vllm else "/v1/realtime/translations"
    languages: dict[str, Any] = {"model": POOL, "target_language": "de"}
    if not vllm:
        sound = {"input": {"format": {"type": "audio/pcm", "rate": RATE}}, "output": {"language": "de"}}
        languages = {"session": {"type": "translation", "audio": sound}}
    with speech.socket(path) as socket:
        socket.send({"type": "session.update", **languages})
        append = "input_audio_buffer.append" if vllm else "session.input_audio_buffer.append"
        if audio:
            socket.send({"type": append, "audio": base64.b64encode(audio).decode()})
        if late:
            wait_until(lambda: speech.client.get("/v1/sessions").json()["data"], 60, "the session")
            session = realtime_session(speech)
            wait_until(
                lambda: is_processed(speech, session, len(audio) // 2), 60, "all audio to be processed"
            )
        commit = {"type": "input_audio_buffer.commit", "final": True}
        socket.send(commit if vllm else {"type": "session.close"})
        return realtime_text(socket, "transcription" if vllm else "session.output_transcript")


def realtime_text(socket: Socket, kind: str) -> str:
    """Read events until one says that the text is complete, and return the text."""
    parts: list[str] = []
    while True:
        event = socket.get()
        assert event["type"] != "error", event
        if event["type"] == f"{kind}.delta":
            parts.append(event["delta"])
        if event["type"] in {"transcription.done", "session.closed"}:
            assert event.get("text", "".join(parts)) == "".join(parts)
            return "".join(parts)


ENDS = {
    "native": end_native,
    "infinisst": end_infinisst,
    "openai": partial(end_realtime, vllm=False),
    "vllm": partial(end_realtime, vllm=True),
}


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "after-all-text"])
@pytest.mark.parametrize("interface", ENDS)
def test_audio_that_ends_with_a_turn_ends_with_its_last_words(
    real: Speech, interface: str, late: bool
) -> None:
    """The audio is exactly three turns long, so no shorter turn is left at its end.

    With ``late``, the client ends the audio after the group has processed all of it.
    """
    audio = noise(3 * BLOCK / RATE)
    assert len(audio) == 3 * BLOCK * 2
    assert ENDS[interface](real, audio, late=late) == expected_text(audio, "de") != ""


@pytest.mark.parametrize("interface", ENDS)
def test_a_session_without_audio_ends_too(real: Speech, interface: str) -> None:
    assert ENDS[interface](real, b"", late=False) == ""


def test_audio_of_the_next_session_may_come_before_the_text_of_the_last_one(real: Speech) -> None:
    """vLLM's clients may send the next audio before they have received the text of the audio before it."""
    pieces = [noise(1.1, seed=seed) for seed in (1, 2)]
    with real.socket("/v1/realtime") as socket:
        socket.send({"type": "session.update", "model": POOL, "target_language": "de"})
        for piece in pieces:
            socket.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()})
            socket.send({"type": "input_audio_buffer.commit", "final": True})
        found = [realtime_text(socket, "transcription") for _ in pieces]
    assert found == [expected_text(piece, "de") for piece in pieces]


def test_a_store_without_memory_holds_audio_back_and_loses_none(real: Speech, valkey_session: Server) -> None:
    audio = noise(4 * BLOCK / RATE)
    session = real.open()["id"]
    with valkey_session.client() as client, real.stream(session) as socket:
        socket.send(audio[: 2 * BLOCK])
        wait_until(lambda: is_processed(real, session, BLOCK), 60, "the first block to be processed")
        client.config_set("maxmemory", 1)
        try:
            assert "memory" in real.open(status=503)["detail"]
            socket.send(audio[2 * BLOCK :])
            assert is_processed(real, session, BLOCK)
        finally:
            client.config_set("maxmemory", 0)
        socket.send({"type": "end"})
        messages, code = socket.rest()
    assert code == 1000, messages
    assert (messages[-1]["data"]["text"], code) == (expected_text(audio, "de"), 1000)
    assert "error" not in {message["type"] for message in messages}


@dataclass
class Speakers:
    """Clients that speak in real time until the ``with`` block ends. Each begins ``stagger_s`` after the one before."""

    speech: Speech
    count: int
    stagger_s: float = 0.1

    def __enter__(self) -> Speakers:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(self.count)
        self._done = [self._pool.submit(self._speak, number) for number in range(self.count)]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for done in self._done:
            done.result()

    def _speak(self, number: int) -> None:
        self._stop.wait(number * self.stagger_s)
        session = self.speech.open()["id"]
        with self.speech.stream(session) as socket:
            while not self._stop.is_set():
                socket.send(bytes(BLOCK * 2))
                self._stop.wait(BLOCK / RATE)
            socket.send({"type": "close"})
            socket.rest()


def batches(speech: Speech) -> Counter[tuple[str, int]]:
    (group,) = speech.client.get("/ray/stats").json()["groups"]
    return Counter(
        {
            (phase, int(size)): count
            for phase, sizes in group["batches"].items()
            for size, count in sizes.items()
        }
    )


def wait_for_batches(speech: Speech, fits: Any, what: str) -> None:
    """Wait until ``fits`` accepts the newest batches. Each call of ``fits`` gets at least twenty new batches."""
    before = batches(speech)

    def reached() -> bool:
        nonlocal before
        now = batches(speech)
        newest = now - before
        if newest.total() < 20:
            return False
        before = now
        return bool(fits(newest))

    wait_until(reached, 60, what)


def configure(speech: Speech, **fields: Any) -> None:
    response = speech.client.post("/ray/configure", json=fields)
    assert response.status_code == 200, response.text


def sizes(newest: Counter[tuple[str, int]], phase: str | None = None) -> list[int]:
    return [size for (found, size) in newest if phase in {None, found}]


def test_the_next_batches_of_a_group_follow_a_change(real: Speech) -> None:
    with Speakers(real, 6, stagger_s=0.0):
        configure(real, strategy="iteration", max_batch_size=32, gather_size=6, gather_wait_ms=200)
        wait_for_batches(real, lambda newest: max(sizes(newest)) > 2, "large batches")
        configure(real, max_batch_size=2)
        wait_for_batches(real, lambda newest: max(sizes(newest)) == 2, "batches of two")
        configure(real, enable_dynamic_batching=False)
        wait_for_batches(real, lambda newest: set(sizes(newest)) == {1}, "one turn at a time")
        configure(real, strategy="mixed", max_batch_size=32)
        wait_for_batches(real, lambda newest: "mixed" in {phase for phase, _ in newest}, "mixed batches")
        configure(real, max_batch_tokens=7)  # room for one block of six tokens and one session that decodes
        wait_for_batches(
            real,
            lambda newest: set(sizes(newest, "mixed")) == {2} and set(sizes(newest, "prefill")) <= {1},
            "one new turn in a batch",
        )
        configure(real, max_batch_tokens=0)
        refused = real.client.post("/ray/configure", json={"strategy": "single", "max_batch_size": 33})
        assert refused.status_code == 422
        wait_for_batches(real, lambda newest: max(sizes(newest)) > 2, "the same batches as before")


def test_a_longer_timeout_makes_larger_batches(real: Speech) -> None:
    """Each of the four speakers begins its turns 0.1 s after the speaker before it."""
    with Speakers(real, 4, stagger_s=0.1):
        configure(real, strategy="request", max_batch_size=4, batch_timeout_ms=0)
        wait_for_batches(real, lambda newest: set(sizes(newest, "prefill")) <= {1, 2}, "small batches")
        configure(real, batch_timeout_ms=400)
        wait_for_batches(real, lambda newest: max(sizes(newest, "prefill")) >= 3, "large batches")
