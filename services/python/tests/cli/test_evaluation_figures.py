"""Tests of the figures of an evaluation, against values that were computed by hand or by sacrebleu 2.6.0."""

from __future__ import annotations

import pytest

from daybreak_server.cli.sessions.evaluation import speeches
from daybreak_server.cli.sessions.evaluation.figures import difference, mean_size, summarize, total
from daybreak_server.cli.sessions.evaluation.latency import SpokenSegment, TimedWord, laal, stream_laal
from daybreak_server.cli.sessions.evaluation.text_quality import accuracy, bleu, resegment, tokens, words
from daybreak_server.cli.sessions.evaluation.user import Talk

GERMAN = (
    [
        "eine braune Blume dreht sich, dann bewegt sich ein Quadrat nach oben.",
        "zeig mir die blaue Blume, die sich nach rechts bewegt.",
    ],
    [
        "eine braune Blume dreht sich, dann bewegt sich ein braunes Quadrat nach oben.",
        "zeig mir eine blaue Blume, die sich nach rechts bewegt.",
    ],
)
CHINESE = (
    ["一朵棕色花正在旋转，然后一个棕色的方块正在移动。"],
    ["一朵棕色的花正在旋转，然后一个棕色的方块正在向上移动。"],
)


@pytest.mark.parametrize(
    ("hypotheses", "references", "expected"),
    [
        (*GERMAN, 79.03530155407607),
        (*CHINESE, 75.42520541051428),  # tokenize="zh"
        (["the cat sat on a mat"], ["the big cat is on the mat."], 8.22487964923291),  # smoothed
        (
            ["10.5 and 3,000 (yes) it's well-known 5-6"],
            ["10.5 and 3,000 (no) it's well-known 5-6"],
            70.16879391277372,
        ),
        (["a b"], ["a b"], 0.0),  # too short for 4-grams
        (["one two three four"], ["five six seven eight"], 0.0),
        ([""], ["five six seven eight"], 0.0),
    ],
)
def test_bleu_is_that_of_sacrebleu(hypotheses, references, expected):
    assert bleu(hypotheses, references) == pytest.approx(expected, abs=1e-9)


def test_units_are_words_and_chinese_characters():
    assert words("Guten Tag. 你好。") == ["Guten", "Tag.", "你", "好", "。"]
    assert tokens("3,000 cats, (5-6)") == ["3,000", "cats", ",", "(", "5", "-", "6", ")"]


def test_accuracy_is_one_minus_the_word_error_rate():
    assert accuracy("a x c", "a b c d") == 0.5  # one substitution, one deletion, four words
    assert accuracy("a b", "a b") == 1.0
    assert accuracy("x y z v w", "a") == 0.0
    assert (accuracy("", ""), accuracy("a", "")) == (1.0, 0.0)


def test_laal_by_hand():
    # gamma = 4 / 4 s: ideal times 0, 1, 2, 3 s
    assert laal([1.0, 2.0, 3.0, 4.0], source_s=4.0, reference_length=4) == pytest.approx(1.0)
    # gamma = 6 / 3 s: the lags are 1 - 0, 2 - 0.5 and 3 - 1; of the words with the delay 3 s, only the first counts
    assert laal([1.0, 2.0, 3.0, 3.0, 3.0, 3.0], source_s=3.0, reference_length=2) == pytest.approx(1.5)
    # the text is shorter than the reference, so the reference's length sets the pace
    assert laal([2.0, 2.0], source_s=4.0, reference_length=8) == pytest.approx((2.0 + 1.5) / 2)
    assert laal([], source_s=4.0, reference_length=8) == 0.0


def test_a_text_is_split_where_it_differs_least_from_the_references():
    assert resegment(["a", "b", "c", "d"], [["a", "b"], ["c", "d"]]) == [(0, 2), (2, 4)]
    assert resegment(["z", "a", "b"], [["a"], ["b"]]) == [(0, 2), (2, 3)]
    assert resegment(["b", "c"], [["a"], ["b", "c"]]) == [(0, 0), (0, 2)]
    assert resegment([], [["a"], ["b"]]) == [(0, 0), (0, 0)]
    assert resegment(["x"], [[], ["x"]]) == [(0, 0), (0, 1)]


def timed(text: str, *times: tuple[float, float]) -> list[TimedWord]:
    return [
        TimedWord(word=word, audio_s=audio, arrived_s=arrived)
        for word, (audio, arrived) in zip(text.split(), times, strict=True)
    ]


def test_stream_laal_counts_each_sentence_from_its_beginning():
    segments = [
        SpokenSegment(start_s=0.0, end_s=2.0, reference="a b"),
        SpokenSegment(start_s=10.0, end_s=14.0, reference="c d"),
    ]
    text = timed("a b c d", (1.0, 1.5), (2.0, 2.5), (12.0, 13.0), (14.0, 15.0))
    # without computation: (1 + 2 - 1) / 2 = 1 and (2 + 4 - 2) / 2 = 2
    assert stream_laal(text, segments, computation_aware=False) == pytest.approx(1.5)
    # with computation: (1.5 + 2.5 - 1) / 2 = 1.5 and (3 + 5 - 2) / 2 = 3
    assert stream_laal(text, segments, computation_aware=True) == pytest.approx(2.25)
    assert stream_laal([], segments, computation_aware=True) is None


def finished(*lags: float) -> Talk:
    speech = speeches.with_reference(bytes(4 * 32_000), "A b c d e.")
    talk = Talk(speech, sent_s=4.0, ended_s=5.0)
    for number, lag in enumerate(lags, 1):
        talk.add("A b c d e."[number * 2 - 2 : number * 2], audio_s=number / 2, arrived_s=number / 2 + lag)
    return talk


def test_sessions_with_a_lag_above_two_seconds_are_not_sustained():
    good, late, broken = finished(0.1, 0.1, 0.3, 0.1, 0.1), finished(0.1, 0.1, 2.1, 0.1, 0.1), finished()
    broken.error = "lost"
    shown = summarize([good, late, broken], {"decode": {1: 2, 4: 2}, "prefill": {2: 1}})
    assert (shown["users"], shown["finished"], shown["sustained"]) == (3, 2, 1)
    assert shown["errors"] == {"lost": 1}
    assert (shown["lag_p50_s"], shown["lag_p95_s"]) == (0.1, 2.1)
    assert (shown["bleu"], shown["accuracy"], shown["rtf"]) == (100.0, 1.0, 1.25)
    assert (shown["first_text_p50_s"], shown["words"]) == (0.6, 10)
    assert shown["mean_batch_size"] == 2.4
    assert good.grew
    assert not broken.grew


def test_without_any_text_there_are_no_figures():
    shown = summarize([], {})
    assert {shown[name] for name in ("bleu", "lag_p95_s", "rtf", "stream_laal_s", "mean_batch_size")} == {
        None
    }


def test_batches_are_counted_between_two_readings():
    before = {"decode": {1: 5, 2: 1}}
    after = {"decode": {1: 5, 2: 4, 3: 1}, "prefill": {1: 2}}
    assert difference(after, before) == {"decode": {2: 3, 3: 1}, "prefill": {1: 2}}
    assert difference(before, before) == {}
    assert total([{"decode": {"2": 1}}, {"decode": {2: 2, 1: 1}}]) == {"decode": {1: 1, 2: 3}}
    assert mean_size({"decode": {1: 1, 3: 1}}) == 2.0


def test_clips_are_repeated_with_pauses_until_they_are_long_enough():
    speech = speeches.of_clips("de", at_least_s=12.0, user=1)
    assert speech is not None
    assert speech.seconds >= 12.0
    assert speech.segments[0].reference.startswith("zeig mir")
    for before, after in zip(speech.segments, speech.segments[1:], strict=False):
        assert after.start_s == pytest.approx(before.end_s + 1.0)
    assert speeches.of_clips("fr", at_least_s=1.0, user=0) is None


def test_noise_of_a_voice_is_always_the_same():
    assert speeches.synthetic(length_s=0.5, voice=1) == speeches.synthetic(length_s=0.5, voice=1)
    assert speeches.synthetic(length_s=0.5, voice=1) != speeches.synthetic(length_s=0.5, voice=2)
    assert len(speeches.synthetic(length_s=0.5, voice=1)) == 16_000
