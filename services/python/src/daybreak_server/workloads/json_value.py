"""Parses JSON from clients, and refuses values with which a later step would fail.

Python's parser accepts three kinds of such values: ``NaN`` and ``Infinity``, which are not JSON; numbers so large that
they become infinite; and half of a surrogate pair. In a later step, each of them would cause an error that does not
name the client's text as the cause: a tokenizer refuses half of a pair, and an infinite number cannot be written as
JSON.

This module also refuses nesting that is too deep for the parser. And it refuses an object that has a key twice, because
the parser would silently use only the last value. The API refuses repeated keys in all other bodies too.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_value(data: bytes) -> Any:
    """The JSON value in ``data``, which may begin with a byte order mark. :raises ValueError: if it is refused."""
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object)
        if _SURROGATE.search(text):  # UTF-8 has no surrogates, so only an escape can give one
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"it is not UTF-8 (byte {exc.start})") from exc
    except UnicodeEncodeError as exc:
        raise ValueError("a text has half of a surrogate pair") from exc
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"an object has the key {twice[:100]!r} twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is too large")
    return value
