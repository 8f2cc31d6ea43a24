"""Text that every store and every client can take.

What a workload says may hold anything: half of a surrogate pair (``os.fsdecode`` of a name that is not UTF-8), NUL,
megabytes. Redis, JSON and terminals refuse the first two or cut a stream at them, so text is made storable where it
enters, once, and everything behind that point may rely on it.
"""

from __future__ import annotations

MESSAGE_CHARS = 2000
"""Of an error's message or a line of a log, as docs/wire.md promises."""
NAME_BYTES = 64
"""Of a phase, an error's code or a level: what Redis keeps in a listpack."""


def storable(value: object, *, chars: int = MESSAGE_CHARS) -> str:
    """The value as text without surrogates and NUL, cut to ``chars``. Never raises, whatever ``__str__`` does."""
    text = _text(value)
    if len(text) > chars:
        text = text[: chars - 1] + "…"
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")[:chars]


def short_name(value: object) -> str:
    """The value as a storable name of at most ``NAME_BYTES`` bytes."""
    return cut(storable(value, chars=NAME_BYTES), NAME_BYTES)


def cut(text: str, max_bytes: int) -> str:
    """As much of the beginning as has ``max_bytes`` in UTF-8."""
    data = text.encode("utf-8")
    return text if len(data) <= max_bytes else data[:max_bytes].decode("utf-8", "ignore")


def _text(value: object) -> str:
    try:
        # Of a subclass of str only the characters: its methods are somebody else's.
        return str.__str__(value) if isinstance(value, str) else str(str(value))
    except BaseException as exc:
        return f"<{type(value).__name__} that cannot be shown: its __str__ raises {type(exc).__name__}>"
