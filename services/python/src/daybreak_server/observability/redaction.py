"""Removes two things from a line of the log: secrets, and texts of the inputs of tasks and requests.

Daybreak's own lines do not quote an input, but the message of an exception may quote one, whole or in part, plain or
escaped. So a part of a line is replaced if it has :data:`WINDOW` characters in a row (a *window*) that also occur in a
text of an input that the process knows.

A shorter text of an input, of at least :data:`SHORTEST` characters, may be an ordinary word. It is replaced where it is
quoted (``input_value='cat'``). Where it is a whole word without quotes, it is replaced only in errors, tracebacks and
libraries' messages that are about the task with this input. If such a word were replaced in every line, a tenant could
remove any word from the whole log.

The work is bounded, because a gateway writes its log on its event loop. The middle of a log text that is longer than
:data:`LONGEST` characters is cut out, and ``domain/private_inputs.py`` bounds the inputs. An input is divided into
blocks, each half as long as a window. Every window of the input contains a whole block. So it is enough to look for the
blocks in the line, and then to compare the windows around the few blocks that the line contains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from daybreak_server.domain import private_inputs
from daybreak_server.domain.private_inputs import PrivateInput
from daybreak_server.settings.sources import masked

REPLACEMENT = "[input]"
WINDOW = 16
SHORTEST = 3
LONGEST = 16 * 1024
_BLOCK = WINDOW // 2
_PLAIN = re.compile(r"[ !#-&(-\[\]-~]*")
"""ASCII that needs no escapes."""
_QUOTE = re.compile("[\"'`]")
_CUT = " … [shortened] … "


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What is private about one input: its long and short texts, each in all forms in which a line may contain it."""

    task: str
    long: tuple[str, ...]
    blocks: frozenset[str]
    """The blocks of the long texts."""
    short: frozenset[str]

    @classmethod
    def of(cls, source: PrivateInput) -> _Pattern:
        """The pattern of an input."""
        forms = {form for text in source.texts for form in _forms(text)}
        long = tuple(form for form in forms if len(form) >= WINDOW)
        return cls(
            source.task,
            long,
            frozenset(text[at : at + _BLOCK] for text in long for at in _blocks(text)),
            frozenset(form for form in forms if SHORTEST <= len(form) < WINDOW),
        )


class Redactor:
    """Makes texts safe to log. ``inputs`` returns the known inputs. It returns the same object until they change."""

    def __init__(self, inputs: Callable[[], Sequence[PrivateInput]] = private_inputs.known) -> None:
        self._inputs = inputs
        self._seen: Sequence[PrivateInput] = ()
        self._patterns: dict[PrivateInput, _Pattern] = {}
        self._short: frozenset[str] = frozenset()

    def __call__(self, text: str, *, task: object = "") -> str:
        """The text without passwords and signatures in URLs, and without text from inputs.

        :param task: The task that the text is about. The short texts of its input are replaced also as whole words.
        """
        safe = _without_middle(text)
        if "://" in safe or "X-Amz-" in safe:
            safe = str(masked(safe))
        inputs = self._inputs()
        if not inputs:
            return safe
        patterns = self._patterns_of(inputs)
        safe = _without_windows(safe, _windows(safe, patterns))
        if task:
            for found in patterns:
                if found.task == task:
                    safe = _without_words(safe, found.short)
        return _without_quoted(safe, self._short)

    def _patterns_of(self, inputs: Sequence[PrivateInput]) -> Iterable[_Pattern]:
        if inputs is not self._seen:
            self._patterns = {found: self._patterns.get(found) or _Pattern.of(found) for found in inputs}
            self._short = frozenset().union(*(found.short for found in self._patterns.values()))
            self._seen = inputs
        return self._patterns.values()


def _forms(text: str) -> Iterable[str]:
    """The text, as it is and as ``repr`` and JSON write it."""
    if _PLAIN.fullmatch(text):
        return (text,)
    return text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _without_middle(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST // 3] + _CUT + text[-(LONGEST - LONGEST // 3 - len(_CUT)) :]


def _blocks(text: str) -> range:
    """Where the blocks of a text of an input begin."""
    return range(0, len(text) - _BLOCK + 1, _BLOCK)


def _windows(line: str, patterns: Iterable[_Pattern]) -> set[str]:
    """The windows that occur both in the line and in an input."""
    blocks = {line[at : at + _BLOCK] for at in range(len(line) - _BLOCK + 1)}
    windows = {line[at : at + WINDOW] for at in range(len(line) - WINDOW + 1)}
    found: set[str] = set()
    for text in (
        text for pattern in patterns if not pattern.blocks.isdisjoint(blocks) for text in pattern.long
    ):
        for block in _blocks(text):
            if text[block : block + _BLOCK] in blocks:
                around = range(max(0, block - _BLOCK + 1), min(block, len(text) - WINDOW) + 1)
                found |= windows.intersection(text[at : at + WINDOW] for at in around)
    return found


def _without_windows(text: str, windows: set[str]) -> str:
    kept, at, end = [], 0, 0
    for start in range(len(text) - WINDOW + 1) if windows else ():
        if text[start : start + WINDOW] not in windows:
            continue
        if start > end:
            kept.append(text[at:start] + REPLACEMENT)
        elif not kept:
            kept.append(text[:start] + REPLACEMENT)
        at = end = start + WINDOW
    return "".join(kept) + text[at:]


def _without_words(text: str, words: frozenset[str]) -> str:
    found = sorted((word for word in words if word in text), key=len, reverse=True)
    if not found:
        return text
    return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, found))})(?!\w)", REPLACEMENT, text)


def _without_quoted(text: str, words: frozenset[str]) -> str:
    if not words:
        return text
    kept, at = [], 0
    for quote in _QUOTE.finditer(text):
        start = quote.end()
        if start <= at:  # this quote is inside the text that was replaced last
            continue
        for end in range(start + SHORTEST, min(start + WINDOW, len(text))):
            if text[end] == quote[0] and text[start:end] in words:
                kept.append(text[at:start] + REPLACEMENT)
                at = end
                break
    return "".join(kept) + text[at:]
