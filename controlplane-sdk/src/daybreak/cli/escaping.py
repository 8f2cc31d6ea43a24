"""What others have written, made fit to be shown: no character of it may move the cursor or turn the text around.

Prompts, metadata and errors come from anybody. A terminal obeys the control characters in them (ESC, U+009B), and a
line break or a tab would pass for a row or a column of ours, so people see them escaped: ``\\x1b[31m``.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL and C1, marks and overrides of direction, line separators, and bytes that were no UTF-8."""
_SHOWN = re.compile(f"[\x00-\x1f{_CONTROL}]")
_IN_JSON = re.compile(f"[{_CONTROL}]")


def visible(text: str) -> str:
    """The text on one line, with its control characters escaped."""
    return _SHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def json_line(value: Any, encoding: str | None) -> str:
    """A value as JSON on one line, which reads back as it was in any encoding."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
