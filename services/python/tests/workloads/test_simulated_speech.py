"""The simulated model of sessions. The audio alone determines the text that the model writes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import LanguagePair, PastTurn, Prefill, SessionFailedError, Token
from daybreak_server.workloads.simulated_speech.model import SESSION_BYTES, SimulatedSpeech
from daybreak_server.workloads.simulated_speech.spec import PAIRS, SPEC, options_of

GERMAN, CHINESE, ENGLISH = PAIRS
BLOCK = SimulatedSpeech().shape.block_samples * 2


def model(**options: float) -> SimulatedSpeech:
    created = SimulatedSpeech(sleep=lambda seconds: None)
    created.load(Group(options=options))
    return created


def speech(blocks: int, seed: int = 0) -> list[bytes]:
    """Blocks of random audio. Each seed gives different audio."""
    return [random.Random(f"{seed} {number}").randbytes(BLOCK) for number in range(blocks)]


def token(answer: Token | SessionFailedError) -> Token:
    assert isinstance(answer, Token), answer
    return answer


def turn(speaker: SimulatedSpeech, session: str, audio: bytes, *, last: bool = False) -> list[Token]:
    """All tokens of a turn."""
    tokens = [token(speaker.prefill([Prefill(session=session, audio=audio, last=last)])[0])]
    while tokens[-1].token is not None:
        tokens.append(token(speaker.decode([session])[0]))
    return tokens[:-1]


def turns(audio: Sequence[bytes], pair: LanguagePair = GERMAN) -> list[list[Token]]:
    """Run a session on a new model, and return the tokens of each turn. The last turn ends the session."""
    speaker = model()
    speaker.open("s", pair)
    return [
        turn(speaker, "s", block, last=number == len(audio)) for number, block in enumerate(audio, start=1)
    ]


def text(turns: Sequence[Sequence[Token]]) -> str:
    return "".join(entry.text for tokens in turns for entry in tokens)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.target)
def test_the_text_consists_of_sentences_of_words(pair: LanguagePair) -> None:
    """Each sentence begins with a capital letter and ends with a full stop, which completes a segment."""
    spoken = turns(speech(40), pair)
    written = text(spoken)
    stop, gap = ("。", "") if pair is CHINESE else (".", " ")
    assert written.endswith(stop)
    sentences = written.removesuffix(stop).split(stop + gap)
    assert len(sentences) == sum(entry.ends_segment for tokens in spoken for entry in tokens) > 3
    assert all(sentence and sentence[0] == sentence[0].upper() for sentence in sentences)
    assert sum(len(sentence.split() if gap else sentence) for sentence in sentences) >= 40
    assert len({len(tokens) for tokens in spoken}) > 2, "turns have different lengths"


def test_the_same_audio_gives_the_same_text_in_every_process() -> None:
    """A group on another machine must write the same text, so nothing may depend on hash seeds or the clock."""
    code = (
        "from tests.workloads.test_simulated_speech import speech, text, turns\n"
        "print(ascii(text(turns(speech(20)))))"
    )
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == ascii(text(turns(speech(20))))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.target)
def test_a_lost_or_doubled_chunk_changes_the_text(pair: LanguagePair) -> None:
    """All text after the chunk changes, so the end of a session's text shows each lost or doubled chunk."""
    audio = speech(30)
    whole = text(turns(audio, pair))
    for at in range(len(audio)):
        lost = text(turns(audio[:at] + audio[at + 1 :], pair))
        doubled = text(turns(audio[: at + 1] + audio[at:], pair))
        assert len({whole, lost, doubled}) == 3, at


@given(st.integers(0, 200), st.data())
@settings(max_examples=100)
def test_another_group_continues_exactly(seed: int, data: st.DataObject) -> None:
    """The other group can continue after every token, even in the last turn. It needs only the newest turns."""
    audio = speech(6, seed)
    pair = data.draw(st.sampled_from(PAIRS))
    undisturbed = turns(audio, pair)
    at = data.draw(st.integers(0, len(audio) - 1))
    written = data.draw(st.integers(0, len(undisturbed[at])))
    complete = written == len(undisturbed[at]) and data.draw(st.booleans())
    past = [
        PastTurn(
            audio=audio[number],
            tokens=tuple(
                entry.token
                for entry in undisturbed[number][: written if number == at else None]
                if entry.token is not None
            ),
            complete=number < at or complete,
            last=number == len(audio) - 1,
        )
        for number in range(at + 1)
    ]
    heir = model()
    heir.open("s", pair, past[-heir.shape.window_turns :])
    continued: list[Token] = []
    while not complete and (entry := token(heir.decode(["s"])[0])).token is not None:
        continued.append(entry)
    assert continued == undisturbed[at][written:]
    for number in range(at + 1, len(audio)):
        assert turn(heir, "s", audio[number], last=number == len(audio) - 1) == undisturbed[number]


def test_a_batch_gives_the_tokens_of_each_session_alone() -> None:
    """A session gets the same tokens alone and beside any other sessions."""
    speaker, audio = model(), [speech(1, seed)[0] for seed in range(8)]
    for number in range(8):
        speaker.open(f"s{number}", PAIRS[number % 3])
    begun = speaker.prefill([Prefill(session=f"s{number}", audio=audio[number]) for number in range(8)])
    texts = {answer.session: [answer.text] for answer in map(token, begun)}
    continuing = list(texts)
    while continuing:
        answers = [token(answer) for answer in speaker.decode(continuing)]
        continuing = [answer.session for answer in answers if answer.token is not None]
        for answer in answers:
            texts[answer.session].append(answer.text)
    for number in range(8):
        alone = model()
        alone.open("s", PAIRS[number % 3])
        assert "".join(texts[f"s{number}"]) == text([turn(alone, "s", audio[number])])


def test_no_turn_has_more_tokens_than_its_shape_says() -> None:
    """A turn of one block has at most ``max_turn_tokens`` tokens.

    The engine fails a session only if a turn has more than 4 × ``max_turn_tokens`` × the latency multiplier.
    """
    bound = model().shape.max_turn_tokens
    assert max(len(tokens) for tokens in turns(speech(400))) <= bound


def test_longer_turns_have_more_words() -> None:
    """A turn of several blocks has about as many words as several turns of one block.

    So longer turns save steps, not words.
    """
    audio = speech(400)
    short = len(text(turns(audio)).split())
    long = len(text(turns([b"".join(audio[at : at + 4]) for at in range(0, 400, 4)])).split())
    assert 0.6 < long / short < 1.4


def test_one_session_fails_alone() -> None:
    """The other sessions of the batch get their tokens."""
    speaker = model()
    speaker.open("a", GERMAN)
    audio = speech(1)[0]
    unknown, odd = Prefill(session="b", audio=audio), Prefill(session="a", audio=audio[:-2])
    assert [type(answer) for answer in speaker.prefill([unknown, odd])] == [SessionFailedError] * 2
    answers = speaker.prefill([Prefill(session="a", audio=audio), unknown])
    assert [type(answer) for answer in answers] == [Token, SessionFailedError]
    again = speaker.prefill([Prefill(session="a", audio=audio)])[0]
    assert "has not ended" in str(again)
    assert [type(answer) for answer in speaker.decode(["b", "a"])] == [SessionFailedError, Token]


def test_sessions_are_bounded_and_their_memory_returns() -> None:
    """The model refuses a session above ``max_sessions``, and ``close`` frees the memory of a session."""
    speaker = model(max_sessions=2)
    speaker.open("a", GERMAN)
    speaker.open("b", GERMAN)
    assert speaker.memory() == (2 * SESSION_BYTES, 2 * SESSION_BYTES)
    with pytest.raises(SessionFailedError, match="all 2 sessions"):
        speaker.open("c", GERMAN)
    with pytest.raises(SessionFailedError, match="open already"):
        speaker.open("a", GERMAN)
    speaker.close("a")
    speaker.close("a")
    assert speaker.memory()[0] == SESSION_BYTES
    speaker.open("c", GERMAN)
    assert "not open" in str(speaker.decode(["a"])[0])


def test_a_wrong_past_is_refused() -> None:
    """With a wrong past, the session would continue with other words."""
    speaker, audio = model(), speech(1)[0]
    unfinished = PastTurn(audio=audio, tokens=(), complete=False)
    french = LanguagePair(source="en", target="fr", source_name="English", target_name="French")
    for pair, past in (
        (french, []),
        (GERMAN, [unfinished, unfinished]),
        (GERMAN, [PastTurn(audio=audio, tokens=(10_000,))]),
        (GERMAN, [PastTurn(audio=audio[1:], tokens=())]),
    ):
        with pytest.raises(SessionFailedError):
            speaker.open("s", pair, past)
    assert speaker.memory()[0] == 0


def test_a_step_takes_as_long_as_its_options_say() -> None:
    """Each block of audio makes a prefill longer, and each session makes a decode longer."""
    slept: list[float] = []
    speaker = SimulatedSpeech(sleep=slept.append)
    costs = {"prefill_ms": 10, "prefill_item_ms": 1, "decode_ms": 5, "decode_item_ms": 0.5}
    speaker.load(Group(options=costs))
    speaker.open("a", GERMAN)
    speaker.open("b", GERMAN)
    two = b"".join(speech(2))
    speaker.prefill([Prefill(session="a", audio=two), Prefill(session="b", audio=two[:BLOCK])])
    speaker.decode(["a", "b"])
    assert slept == pytest.approx([0.013, 0.006])
    real = SimulatedSpeech()
    real.load(Group(options={"decode_ms": 20}))
    began = time.monotonic()
    real.decode(["a"])
    assert time.monotonic() - began >= 0.02


def test_it_is_installed_as_a_workload_and_needs_no_torch() -> None:
    """A pool can name the workload in its settings. Its groups start quickly, because they import no torch."""
    (entry,) = entry_points(group="daybreak.workloads", name="simulated-speech")
    assert entry.load() is SPEC
    code = f"import sys, {SimulatedSpeech.__module__}; print({{'torch', 'numpy'}} & set(sys.modules))"
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "set()"


def test_a_wrong_option_is_refused() -> None:
    """The option is refused when the settings are read."""
    with pytest.raises(ValueError, match="decode_ms"):
        options_of({"decode_ms": -1})
    with pytest.raises(ValueError, match="speed"):
        options_of({"speed": 1})


def test_turns_of_silence_and_an_empty_end_are_turns_too() -> None:
    """An empty last turn only ends the sentence."""
    spoken = turns([bytes(BLOCK), bytes(BLOCK), b""])
    assert all(spoken[:2])
    assert text(spoken).endswith(".")
    counts = list(accumulate(len(tokens) for tokens in spoken))
    assert counts[-1] - counts[-2] <= 1
