"""Escape control characters in untrusted text before it is printed.

Prompts, metadata and errors may come from anyone. A terminal would obey control characters in them (ESC, U+009B) and
direction overrides, and a line break or a tab would look like a new row or column. So the commands print such
characters escaped, for example as ``\\x1b[31m``.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL and C1, direction marks and overrides, line separators, and bytes that were not UTF-8."""
_SHOWN = re.compile(f"[\x00-\x1f{_CONTROL}]")
_IN_JSON = re.compile(f"[{_CONTROL}]")


def visible(text: str) -> str:
    """The text on one line, with control characters escaped."""
    return _SHOWN.sub(lambda match: ascii(match[0])[1:-1], text)


def json_line(value: Any, encoding: str | None) -> str:
    """A value as one line of JSON that contains only characters of ``encoding``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
