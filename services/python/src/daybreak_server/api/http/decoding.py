"""Decodes the bytes of a request's body: compression, text encoding, JSON. Each error says how to correct the body."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError

ENCODINGS: Final = ("gzip", "deflate")
"""The supported values of ``Content-Encoding``, besides ``identity``."""
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_STARTS = frozenset(b'{["-0123456789tfn')
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_SHOWN = 20
_MEMBERS_MAX = 100


def decompress(raw: bytes, encoding: str | None, *, max_bytes: int) -> bytes | None:
    """The decompressed body; ``None`` if it is larger than ``max_bytes``.

    :raises ApiError: ``unsupported_media_type`` if the encoding is not supported; ``bad_json`` if the body is not
        valid in its encoding.
    """
    encodings = [part.strip().lower() for part in (encoding or "").split(",")]
    encodings = [part.removeprefix("x-") for part in encodings if part not in {"", "identity"}]
    if not encodings:
        return raw
    if len(encodings) > 1 or encodings[0] not in ENCODINGS:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"The Content-Encoding {str(encoding)[:100]!r} is not supported. Use one of {', '.join(ENCODINGS)}, "
            "or send the body uncompressed.",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    try:
        return _inflate(raw, encodings[0], max_bytes)
    except zlib.error as exc:
        raise ApiError(
            ErrorCode.BAD_JSON,
            f"The header Content-Encoding is {encodings[0]}, but the body is not valid {encodings[0]}: {exc}. "
            "Compress the body, or remove the header.",
        ) from exc


def _inflate(raw: bytes, encoding: str, max_bytes: int) -> bytes | None:
    """The decompressed body; ``None`` as soon as it exceeds ``max_bytes``.

    A body in gzip may be a sequence of members, each compressed separately. The number of members is limited, because
    each member costs a copy of the rest of the body. Without the limit, a small body of many empty members would take
    seconds.
    """
    members: list[bytes] = []
    allowed, rest = max_bytes, raw
    while rest or not members:
        if len(members) == (_MEMBERS_MAX if encoding == "gzip" else 1):
            raise zlib.error(
                f"it has more than {_MEMBERS_MAX} members" if encoding == "gzip" else "bytes follow its end"
            )
        decoder = zlib.decompressobj(_window(rest, encoding))
        members.append(decoder.decompress(rest, allowed + 1))
        allowed -= len(members[-1])
        if allowed < 0:
            return None
        if not decoder.eof:
            raise zlib.error("the data is cut off")
        rest = decoder.unused_data
    return b"".join(members)


def _window(raw: bytes, encoding: str) -> int:
    """zlib's ``wbits`` for the format. ``deflate`` means data in a zlib frame, but clients often omit the frame."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    framed = len(raw) >= 2 and raw[0] & 0x0F == zlib.DEFLATED and not int.from_bytes(raw[:2]) % 31
    return zlib.MAX_WBITS if framed else -zlib.MAX_WBITS


def parse_json(raw: bytes) -> Any:
    """The JSON value. :raises ApiError: ``bad_json``, which says what is wrong and how to correct it."""
    raw = raw.removeprefix(_BOM)
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as exc:
        raise ApiError(ErrorCode.BAD_JSON, _json_error(raw, exc)) from exc
    try:
        _KEYS.decode(raw.decode())
    except _DuplicateKeyError as exc:
        raise ApiError(
            ErrorCode.BAD_JSON, f"One object of the body has the key {exc.key[:100]!r} twice. Send it once."
        ) from exc
    return data


class _DuplicateKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _check_unique(pairs: Sequence[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise _DuplicateKeyError(counted.most_common(1)[0][0])


_KEYS = json.JSONDecoder(object_pairs_hook=_check_unique, parse_int=len, parse_float=len)
"""A second pass, which only looks for duplicate keys. pydantic's faster parser accepts duplicate keys, and keeps the
last value. This pass does not parse numbers (``len`` accepts any text), because ``int`` refuses very long numbers."""


def _json_error(raw: bytes, exc: ValueError) -> str:
    start = raw.lstrip(b" \t\r\n")
    if not start:
        return "The body is empty. Send a JSON object."
    return _text_error(raw) or _syntax_error(raw, start) or f"The body is not valid JSON: {exc}."


def _text_error(raw: bytes) -> str | None:
    if raw.startswith(_GZIP_MAGIC):
        return "The body is compressed with gzip. Send the header Content-Encoding: gzip."
    if raw.startswith(_WIDE_BOMS) or b"\x00" in raw[:4]:
        return "The body is UTF-16, UTF-32 or no text at all. Send JSON in UTF-8."
    try:
        raw.decode()
    except UnicodeDecodeError as exc:
        return f"The body is not valid UTF-8 (byte {exc.start} is {raw[exc.start]:#04x}). Send JSON in UTF-8."
    return None


def _syntax_error(raw: bytes, start: bytes) -> str | None:
    if start[0] not in _STARTS and not start.startswith((b"NaN", b"Inf")):
        shown = start.decode()[:_SHOWN]
        return f"The body is not JSON: it begins with {shown!r}. Send a JSON object, such as {{}}."
    if _is_json_with_nan(raw):
        return "JSON has neither NaN nor Infinity. Send a finite number, or leave the field out."
    return None


def _is_json_with_nan(raw: bytes) -> bool:
    try:
        from_json(raw, allow_inf_nan=True)
    except ValueError:
        return False
    return True
