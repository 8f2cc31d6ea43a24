"""Text that every store and every client accepts.

Text from a workload may contain anything: half of a surrogate pair (``os.fsdecode`` of a name that is not UTF-8), NUL,
megabytes. Half a pair cannot be encoded as UTF-8, and many programs reject NUL or end the text there. So the server
makes text storable once, where the text enters the server, and all later code relies on this.
"""

from __future__ import annotations

MESSAGE_CHARS = 2000
"""The longest error message or log line."""
NAME_BYTES = 64
"""The longest phase, error code or log level. By default, a listpack of Redis holds values up to this length."""


def storable(value: object, *, chars: int = MESSAGE_CHARS) -> str:
    """The value as text without surrogates and NUL, cut to ``chars``.

    The function never raises an exception, whatever ``__str__`` does.
    """
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
    """The longest prefix that has at most ``max_bytes`` in UTF-8."""
    data = text.encode("utf-8")
    return text if len(data) <= max_bytes else data[:max_bytes].decode("utf-8", "ignore")


def _text(value: object) -> str:
    try:
        # For a subclass of str, read the characters without calling its own methods.
        return str.__str__(value) if isinstance(value, str) else str(str(value))
    except BaseException as exc:
        return f"<{type(value).__name__} that cannot be shown: its __str__ raises {type(exc).__name__}>"
