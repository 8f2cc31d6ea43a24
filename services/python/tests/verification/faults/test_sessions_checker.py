"""The checker of sessions finds each kind of broken promise.

Most tests break one promise in a history that otherwise keeps all promises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from verification.faults.sessions.checker import check, gather, owners
from verification.faults.sessions.speech import expected_text, float32, noise

Line = dict[str, Any]


def event(number: int, kind: str, **data: Any) -> Line:
    return {"op": "event", "kind": "saw", "id": f"1000-{number}", "type": kind, "data": data}


def text(number: int, words: str, *, segment: int, audio_ms: int) -> Line:
    return event(number, "text", text=words, segment=segment, audio_ms=audio_ms)


def story() -> list[Line]:
    """The history of a client whose group dies in the middle of a sentence, and whose connection breaks once."""
    lines: list[Line] = [
        {
            "op": "session",
            "kind": "begin",
            "client": 1,
            "samples": 20_000,
            "text": "Ein Satz. Noch einer.",
            "reason": "finished",
            "absurd": 1,
        },
        {"op": "ready", "kind": "saw", "send_from": 0},
        event(1, "started", group="g1", attempt=1),
        {"op": "sent", "kind": "saw", "upto": 8000},
        {"op": "received", "kind": "saw", "send_from": 7000},
        text(2, "Ein", segment=0, audio_ms=480),
        event(3, "waiting", reason="lease_lost"),
        event(4, "started", group="g2", attempt=2),
        text(5, " Satz", segment=0, audio_ms=480),
        {"op": "closed", "kind": "saw", "code": 1006, "reason": ""},
        {"op": "ready", "kind": "saw", "send_from": 7500},
        {"op": "error", "kind": "saw", "code": "invalid_audio", "fatal": False, "message": "Sample 5"},
        text(6, ".", segment=0, audio_ms=480),
        event(7, "segment", segment=0, text="Ein Satz.", start_ms=0, end_ms=480),
        {"op": "sent", "kind": "saw", "upto": 20_000},
        text(8, " Noch einer", segment=1, audio_ms=960),
        text(9, ".", segment=1, audio_ms=960),
        event(10, "segment", segment=1, text="Noch einer.", start_ms=480, end_ms=960),
        event(11, "ended", reason="finished", text="Ein Satz. Noch einer."),
        {"op": "closed", "kind": "saw", "code": 1000, "reason": ""},
    ]
    whole = [{**line, "session": "speech_1"} for line in lines]
    return [{**line, "t": float(at)} for at, line in enumerate([*whole, {"op": "load", "kind": "end"}])]


def found(lines: list[Line]) -> set[str]:
    return {violation.kind for violation in check(lines).violations}


def line_of(lines: list[Line], number: int) -> Line:
    return next(line for line in lines if line.get("id") == f"1000-{number}")


def test_a_history_that_keeps_every_promise_has_no_violation() -> None:
    assert check(story()).ok, check(story()).text()
    seen = gather(story())
    assert owners(seen) == 1
    assert seen.sessions["speech_1"].longest_gap(0.0) == 4.0


def _drop(number: int) -> Callable[[list[Line]], None]:
    return lambda lines: lines.remove(line_of(lines, number))


def _twice(lines: list[Line]) -> None:
    at = lines.index(line_of(lines, 5))
    lines.insert(at + 1, dict(lines[at]))


def _with(number: int, **data: Any) -> Callable[[list[Line]], None]:
    return lambda lines: line_of(lines, number).update(data=line_of(lines, number)["data"] | data)


def _swap(lines: list[Line]) -> None:
    first, second = lines.index(line_of(lines, 8)), lines.index(line_of(lines, 9))
    lines[first], lines[second] = lines[second], lines[first]


def _change(op: str, place: int, **fields: Any) -> Callable[[list[Line]], None]:
    return lambda lines: [line for line in lines if line["op"] == op][place].update(fields)


def _no_error(lines: list[Line]) -> None:
    lines.remove(next(line for line in lines if line["op"] == "error"))


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        pytest.param(_drop(11), {"end"}, id="no end"),
        pytest.param(_with(11, reason="idle"), {"end"}, id="another end"),
        pytest.param(_with(11, text="Ein Satz."), {"text"}, id="the last event has another text"),
        pytest.param(_drop(5), {"text", "sentences"}, id="a lost word"),
        pytest.param(_twice, {"text", "order", "sentences"}, id="a word twice"),
        pytest.param(_with(8, text=" Noch zwei"), {"text", "sentences"}, id="another word"),
        pytest.param(_swap, {"text", "order", "sentences"}, id="words in another order"),
        pytest.param(_with(9, audio_ms=400), {"order"}, id="text of earlier audio"),
        pytest.param(_with(4, attempt=3), {"order"}, id="an owner that nobody saw"),
        pytest.param(_with(7, text="Satz."), {"sentences"}, id="a sentence without its beginning"),
        pytest.param(_with(10, segment=2), {"sentences"}, id="a sentence with another number"),
        pytest.param(_change("ready", 1, send_from=9000), {"audio"}, id="audio that was never sent"),
        pytest.param(_change("ready", 1, send_from=6999), {"audio"}, id="acknowledged audio was lost"),
        pytest.param(_no_error, {"refusals"}, id="nonsense was taken"),
        pytest.param(_change("error", 0, code="internal"), {"refusals"}, id="an error without a name"),
        pytest.param(lambda lines: lines.pop(), {"unsettled"}, id="a history without its end"),
    ],
)
def test_a_broken_promise_is_found(plant: Callable[[list[Line]], Any], kinds: set[str]) -> None:
    lines = story()
    plant(lines)
    assert found(lines) == kinds


def test_an_event_after_the_end_is_found() -> None:
    lines = story()
    lines.insert(-1, {**event(12, "waiting", reason="released"), "session": "speech_1", "t": 30.0})
    assert found(lines) == {"end"}


def test_a_history_without_sessions_proves_nothing() -> None:
    assert found([{"op": "load", "kind": "end", "t": 0.0}]) == {"unsettled"}


def test_the_expected_text_depends_on_every_block_and_on_their_order() -> None:
    audio = noise(2.0, seed="a")
    block = 2 * 7680
    texts = {
        expected_text(audio, "de"),
        expected_text(audio[block:], "de"),
        expected_text(audio[:block] + audio, "de"),
        expected_text(audio[:block] + audio[2 * block :], "de"),
        expected_text(audio[:-2], "de"),
        expected_text(audio, "zh"),
    }
    assert len(texts) == 6
    assert expected_text(audio, "de") == expected_text(noise(2.0, seed="a"), "de")


def test_floats_have_the_samples_of_the_same_audio() -> None:
    from daybreak_server.api.sessions.audio.formats import AudioFormat, Converter

    audio = noise(0.5, seed="a")
    assert Converter(AudioFormat.parse("float32", "16000")).feed(float32(audio)) == audio
