"""Removes secrets, and text from the inputs of tasks, from a line of the log.

Daybreak's own lines do not name an input, but the message of an exception may quote one, whole or in part, plain or
escaped. So a part of a line is replaced if it has :data:`WINDOW` characters in a row that also occur in a text of a
recent input, or if it is a whole text of an input, of at least :data:`SHORTEST` characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from daybreak_server.domain.log_context import private_inputs
from daybreak_server.settings.sources import masked

REPLACEMENT = "[input]"
WINDOW = 16
SHORTEST = 3
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class _Private:
    """What is private about one input: the windows of its long texts, and its short texts."""

    source: object
    windows: frozenset[str]
    short: frozenset[str]


class Redactor:
    """Makes texts safe to log. ``inputs``: gets the inputs of recent tasks, as values or JSON."""

    def __init__(self, inputs: Callable[[], Sequence[object]] = private_inputs) -> None:
        self._inputs = inputs
        self._known: dict[int, _Private] = {}

    def __call__(self, text: str) -> str:
        """The text without passwords in URLs, and without text from inputs."""
        safe = str(masked(text)) if "://" in text else text
        inputs = self._inputs()
        if not inputs:
            return safe
        # An object is known by its identity, which stays its own while it is kept here.
        self._known = {id(source): self._known.get(id(source)) or _private(source) for source in inputs}
        found = self._known.values()
        safe = _without_windows(safe, frozenset().union(*(private.windows for private in found)))
        short = frozenset().union(*(private.short for private in found))
        if any(word in safe for word in short):
            either = "|".join(re.escape(word) for word in sorted(short, key=len, reverse=True))
            safe = re.sub(rf"(?<!\w)(?:{either})(?!\w)", REPLACEMENT, safe)
        return safe


def _private(source: object) -> _Private:
    value = source
    if isinstance(source, str):
        try:
            value = json.loads(source)
        except (ValueError, RecursionError):
            value = source
    variants = {variant for text in _texts(value, 0) for variant in _variants(text)}
    windows = (
        text[at : at + WINDOW]
        for text in variants
        if len(text) >= WINDOW
        for at in range(len(text) - WINDOW + 1)
    )
    short = (text for text in variants if SHORTEST <= len(text) < WINDOW)
    return _Private(source, frozenset(windows), frozenset(short))


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _MAX_DEPTH and isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item, depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, depth + 1)


def _variants(text: str) -> Iterator[str]:
    """The text, as it is and as ``repr`` and JSON write it."""
    yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])


def _without_windows(text: str, windows: frozenset[str]) -> str:
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
