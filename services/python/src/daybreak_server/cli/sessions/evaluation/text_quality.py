"""Measures the quality of a text against a reference (BLEU and word accuracy), and splits a long text into parts that
match the sentences of a reference."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_ORDER = 4
_CJK = re.compile(r"([\u3400-\u9fff\u3000-\u303f\uff00-\uffef])")
_PUNCTUATION = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def words(text: str) -> list[str]:
    """The units in which delays and accuracy are counted: words, and single Chinese characters."""
    return _apart(text).split()


def tokens(text: str) -> list[str]:
    """The units of BLEU: the tokens of sacrebleu's tokenizer ``13a``, or of its ``zh`` for Chinese characters."""
    text = f" {_apart(text)} "
    for pattern, replacement in _PUNCTUATION:
        text = pattern.sub(replacement, text)
    return text.split()


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of a corpus, from 0 to 100, as sacrebleu computes it (one reference, order 4, exponential smoothing).

    See Matt Post, "A Call for Clarity in Reporting BLEU Scores" (WMT 2018). An order without a matching n-gram counts
    as ``1 / 2^k`` matches, where k is 1 for the first such order, 2 for the second, and so on. If no n-gram of any
    order matches, or the text is too short for some order, BLEU is 0.
    """
    matches, totals = [0] * _ORDER, [0] * _ORDER
    length = reference_length = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        found, wanted = tokens(hypothesis), tokens(reference)
        length, reference_length = length + len(found), reference_length + len(wanted)
        for order in range(_ORDER):
            ours, theirs = _ngrams(found, order + 1), _ngrams(wanted, order + 1)
            matches[order] += sum((ours & theirs).values())
            totals[order] += sum(ours.values())
    if not all(totals) or not any(matches):
        return 0.0
    logs, smoothing = 0.0, 1.0
    for matched, total in zip(matches, totals, strict=True):
        if not matched:
            smoothing *= 2
        logs += math.log(matched / total if matched else 1 / (smoothing * total))
    brevity = min(0.0, 1 - reference_length / length)
    return 100 * math.exp(brevity + logs / _ORDER)


def accuracy(hypothesis: str, reference: str) -> float:
    """One minus the word error rate, but at least 0. Wrong, missing and additional words are errors."""
    found, wanted = words(hypothesis), words(reference)
    if not wanted:
        return float(not found)
    return max(0.0, 1 - distances(found, wanted)[-1][-1] / len(wanted))


def resegment(found: Sequence[str], references: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Which words of a session belong to each reference: ``(first, end)``.

    The split is the one with the smallest total edit distance to the references, as in mWERSegmenter: Matusov et al.,
    "Evaluating Machine Translation Output with Automatic Sentence Segmentation" (IWSLT 2005).
    """
    wanted = [word for reference in references for word in reference]
    table = distances(found, wanted)
    ends, ended = [], len(found)
    at = len(wanted)
    for reference in reversed(references):
        ends.append(ended)
        for _ in reference:
            ended, at = _before(table, found, wanted, ended, at)
    ends.reverse()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def distances(found: Sequence[str], wanted: Sequence[str]) -> list[list[int]]:
    """Levenshtein's table: entry ``[i][j]`` is the edit distance between the first ``i`` words of ``found`` and the
    first ``j`` words of ``wanted``."""
    table = [list(range(len(wanted) + 1))]
    for i, word in enumerate(found, 1):
        row, above = [i], table[-1]
        for j, other in enumerate(wanted, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
        table.append(row)
    return table


def _before(
    table: list[list[int]], found: Sequence[str], wanted: Sequence[str], i: int, j: int
) -> tuple[int, int]:
    """Follow a cheapest path back from ``(i, j)`` to column ``j - 1``, and return the entry that it reaches there."""
    while i and table[i][j] == table[i - 1][j] + 1:
        i -= 1
    if i and table[i][j] == table[i - 1][j - 1] + (found[i - 1] != wanted[j - 1]):
        return i - 1, j - 1
    return i, j - 1


def _apart(text: str) -> str:
    return _CJK.sub(r" \1 ", text)


def _ngrams(units: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(units[i : i + order]) for i in range(len(units) - order + 1))
