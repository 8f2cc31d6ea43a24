"""Remembers the inputs of tasks and requests, so that the log of this process hides them.

Daybreak's own log messages do not quote an input, but the message of an exception may quote one. So the process
remembers the texts of an input while its task or request runs here (:class:`running`), and the texts of the inputs that
it saw last (:func:`keep`). The log hides these texts (``observability/redaction.py``).

Anybody may send an input, so memory and work are bounded. Of each input, about the first :data:`INPUT_CHARS` characters
are remembered. Of the inputs whose task or request does not run here, the newest :data:`RECENT` are remembered, with at
most :data:`RECENT_CHARS` characters in all.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

INPUT_CHARS = 16 * 1024
"""How many characters of one input are remembered. A valid input of a task is not longer."""
RECENT = 128
"""How many inputs of tasks and requests that do not run here are remembered. A batch of submitted tasks has fewer (at
most 100)."""
RECENT_CHARS = 64 * 1024
_TEXT_CHARS = 16
"""Each text counts as its length plus this number of characters."""
_MAX_DEPTH = 32
_PLAIN_ITEMS = 64
_SINGLE = (int, float, bool, type(None))


@dataclass(frozen=True, slots=True, eq=False)
class PrivateInput:
    """The texts of an input, and its task, if it has one. An object equals only itself."""

    texts: tuple[str, ...]
    task: str = ""

    @classmethod
    def of(cls, value: object, task: str = "") -> PrivateInput:
        """The texts of an input, which is given as JSON text or as a value."""
        if isinstance(value, str):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(value)
        texts = _texts_of_plain(value)
        return cls(tuple(_Texts().of(value)) if texts is None else texts, task)

    @property
    def chars(self) -> int:
        """The length of all texts, plus ``_TEXT_CHARS`` for each."""
        return sum(map(len, self.texts)) + _TEXT_CHARS * len(self.texts)


def _texts_of_plain(value: object) -> tuple[str, ...] | None:
    """The texts of a small mapping without nested values, or ``None`` if the value is something else.

    Most inputs are such mappings, and this finds their texts faster than :class:`_Texts`.
    """
    if type(value) is not dict or len(value) > _PLAIN_ITEMS:
        return None
    texts, chars = [], 0
    for item in value.values():
        if type(item) is str:
            texts.append(item)
            chars += len(item)
        elif type(item) not in _SINGLE:
            return None
    return tuple(texts) if chars < INPUT_CHARS // 2 else None


class _Texts:
    """Finds the texts of a value until a budget of characters and items is used up."""

    def __init__(self) -> None:
        self._left = INPUT_CHARS

    def of(self, value: object, depth: int = 0) -> Iterator[str]:
        """The texts in a value, and the keys of nested mappings. Keys of the outermost mapping are not private, because
        they are the names of the workload's fields."""
        self._left -= 1
        if self._left <= 0 or depth > _MAX_DEPTH:
            return
        if isinstance(value, str):
            text = value[: max(0, self._left - _TEXT_CHARS)]
            self._left -= len(text) + _TEXT_CHARS
            yield text
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if self._left <= 0:
                    return
                if depth:
                    yield from self.of(key, depth + 1)
                yield from self.of(item, depth + 1)
        elif isinstance(value, list | tuple):
            for item in value:
                if self._left <= 0:
                    return
                yield from self.of(item, depth + 1)


_lock = threading.RLock()
_running: dict[int, PrivateInput] = {}
_recent: deque[tuple[PrivateInput, int]] = deque()
"""Inputs and their lengths."""
_recent_chars = 0
_known: tuple[PrivateInput, ...] | None = ()


def keep(value: object, task: str = "") -> None:
    """Remember an input, which is given as JSON text or as a value, until newer inputs replace it."""
    _keep(PrivateInput.of(value, task))


class running:  # noqa: N801 - it reads like a function
    """Remember the input of a task or request inside a ``with`` block, and after the block as :func:`keep` does."""

    def __init__(self, value: object, task: str) -> None:
        self._input = PrivateInput.of(value, task)

    def __enter__(self) -> None:
        global _known  # noqa: PLW0603 - the process has one log
        with _lock:
            _running[id(self)] = self._input
            _known = None

    def __exit__(self, *_: object) -> None:
        with _lock:
            del _running[id(self)]
            _keep(self._input)


def known() -> tuple[PrivateInput, ...]:
    """The inputs that are remembered. The same tuple is returned until these inputs change."""
    global _known  # noqa: PLW0603
    with _lock:
        if _known is None:
            _known = (*_running.values(), *(found for found, _ in _recent))
        return _known


def _keep(found: PrivateInput) -> None:
    global _known, _recent_chars  # noqa: PLW0603
    chars = found.chars
    with _lock:
        _recent.append((found, chars))
        _recent_chars += chars
        while len(_recent) > RECENT or _recent_chars > RECENT_CHARS:
            _recent_chars -= _recent.popleft()[1]
        _known = None
