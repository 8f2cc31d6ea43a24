"""A slow tokenizer, written in Python, gives the same tokens as the fast one, even if many threads use it at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.workloads.serving import RequestError
from daybreak_server.workloads.text_batches.tokens import TextTokenizer
from testkit.text_models import POSITIONS, SPECIAL, WORDS, sentence, word_tokenizer

TEXTS = [sentence(number, 1 + number % 9) for number in range(24)]
PAIRS = [(TEXTS[number], TEXTS[-number]) for number in range(1, 9)]
NAMES = [f"input.{number}" for number in range(len(TEXTS))]
FIELDS = [f"texts.{number}" for number in range(len(PAIRS))]
LONG = " ".join(WORDS[:40] * 2)
Make = Callable[..., tuple[TextTokenizer, TextTokenizer]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the slow and the fast tokenizer of the same words."""
    from transformers import AutoTokenizer, BertTokenizerLegacy

    word_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS)))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    slow = BertTokenizerLegacy(str(tmp_path / "vocab.txt"), model_input_names=inputs)
    fast = AutoTokenizer.from_pretrained(tmp_path)
    assert (slow.is_fast, fast.is_fast) == (False, True)

    def both(*, cut: bool = False, **options: Any) -> tuple[TextTokenizer, TextTokenizer]:
        return tuple(TextTokenizer(each, max_tokens=POSITIONS, cut=cut, **options) for each in (slow, fast))  # type: ignore[return-value]

    return both


def test_texts_have_the_same_tokens(make: Make) -> None:
    slow, fast = make()
    assert (slow.before, slow.after, slow.vocabulary) == (fast.before, fast.after, fast.vocabulary)
    assert slow.texts(TEXTS, NAMES) == fast.texts(TEXTS, NAMES)
    assert slow.texts(TEXTS, NAMES, prefix="query : ") == fast.texts(TEXTS, NAMES, prefix="query : ")
    assert (
        slow.plain("the cat sat")
        == fast.plain("the cat sat")
        == tuple(len(SPECIAL) + WORDS.index(word) for word in ("the", "cat", "sat"))
    )
    assert slow.ids([[7, 8]], ["input"], prefix="query :") == fast.ids([[7, 8]], ["input"], prefix="query :")


def test_pairs_have_the_same_tokens_and_types(make: Make) -> None:
    slow, fast = make()
    found = slow.pairs(PAIRS, FIELDS)
    assert found == fast.pairs(PAIRS, FIELDS)
    assert set(found[0].type_ids) == {0, 1}


def test_long_texts_are_cut_in_the_same_place(make: Make) -> None:
    slow, fast = make(cut=True)
    (text,) = slow.texts([LONG], ["input"])
    assert [text] == fast.texts([LONG], ["input"])
    assert (len(text.ids), text.cut) == (POSITIONS, True)
    (pair,) = slow.pairs([("a cat", LONG)], ["texts.0"])
    assert [pair] == fast.pairs([("a cat", LONG)], ["texts.0"])
    assert (len(pair.ids), len(pair.type_ids), pair.cut) == (POSITIONS, POSITIONS, True)
    for tokenizer in (slow, fast):
        # The first text leaves no room for the second.
        with pytest.raises(RequestError, match="takes at most 64"):
            tokenizer.pairs([(LONG, "a cat")], ["texts.0"])


def test_long_texts_are_refused(make: Make) -> None:
    for tokenizer in make():
        with pytest.raises(RequestError, match=r"input\.1 has 82 tokens"):
            tokenizer.texts(["a cat", LONG], NAMES[:2])


def test_a_text_is_not_cut_to_nothing_but_its_prompt(make: Make) -> None:
    """If only the prompt were left, all texts would have the same vector."""
    prompt = sentence(1, POSITIONS - 3)
    for tokenizer in make(cut=True):
        (text,) = tokenizer.texts(["a cat"], ["input"], prefix=f"{prompt} ")
        assert (len(text.ids), text.cut, text.ids[-2]) == (POSITIONS, True, *tokenizer.plain("a"))
        for longer in (f"{prompt} the ", f"{prompt} the cat "):
            with pytest.raises(RequestError, match="takes at most 64"):
                tokenizer.texts(["a cat"], ["input"], prefix=longer)
            with pytest.raises(RequestError, match="takes at most 64"):
                tokenizer.ids([[7, 8]], ["input"], prefix=longer)


def test_two_tokens_between_the_texts_of_a_pair_count_in_its_length(tmp_path: Path) -> None:
    """PhoBERT, which has no fast tokenizer, writes pairs in this form: ``<s> first </s></s> second </s>``."""
    from transformers import PhobertTokenizer

    vocabulary, merges = tmp_path / "vocab.txt", tmp_path / "bpe.codes"
    vocabulary.write_text("a 1\nb 1\nc 1\n")
    merges.touch()
    tokenizer = TextTokenizer(PhobertTokenizer(str(vocabulary), str(merges)), max_tokens=8, cut=True)
    (pair,) = tokenizer.pairs([("a b a", "c a b")], ["texts.0"])
    assert (pair.ids, pair.cut) == (tokenizer.plain("<s> a b a </s> </s> c </s>"), True)
    with pytest.raises(RequestError, match="takes at most 8"):  # the first text leaves no room for the second
        tokenizer.pairs([("a b a b", "c a b")], ["texts.0"])


def test_texts_are_changed_to_lower_case(make: Make) -> None:
    slow, fast = make(lower=True)
    assert (
        slow.texts(["The CAT"], ["input"])
        == fast.texts(["The CAT"], ["input"])
        == slow.texts(["the cat"], ["input"])
    )


def test_many_threads_get_their_own_tokens(make: Make) -> None:
    """One thread at a time uses the tokenizer, so no thread gets tokens of another thread's text."""
    slow, fast = make(cut=True)
    expected = [(fast.texts([text, LONG], NAMES[:2]), fast.pairs(PAIRS, FIELDS)) for text in TEXTS]
    with ThreadPoolExecutor(8) as threads:
        work = threads.map(
            lambda text: (slow.texts([text, LONG], NAMES[:2]), slow.pairs(PAIRS, FIELDS)), TEXTS
        )
        assert list(work) == expected
