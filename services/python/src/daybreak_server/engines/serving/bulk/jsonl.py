"""Reads a JSONL file line by line, with line numbers and limits.

Each line of the file is one :class:`Line`, even if the line is empty, too long or not JSON. In these cases, ``error``
says why there is no value. No line is left out, so the task's output has the same line numbers as its input. The
last line needs no line break, and a file that ends with a line break has no empty line after it. Reading can begin
after any line whose number and end are known.

A line that is too long is skipped in pieces, so it is never in memory as a whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from daybreak_server.workloads.bulk import LineError
from daybreak_server.workloads.json_value import json_value

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the file. ``value`` is meaningless if there is an ``error``."""

    number: int
    """Counted from 1."""
    end: int
    """The offset of the first byte after the line."""
    size: int
    """The number of bytes from which the value was read; 0 if there is an ``error``."""
    value: Any = None
    error: LineError | None = None


def read_lines(file: BinaryIO, *, max_line_bytes: int, number: int = 0, offset: int = 0) -> Iterator[Line]:
    """The lines after line ``number``, which ends at ``offset``.

    :param max_line_bytes: The largest allowed size of a line, without its line break.
    """
    file.seek(offset)
    # The longest allowed line, and a line break of two bytes.
    while data := file.readline(max_line_bytes + 2):
        number += 1
        offset += len(data)
        ended = data.endswith(b"\n")
        text = data.removesuffix(b"\n").removesuffix(b"\r") if ended else data
        if len(text) > max_line_bytes:
            while not ended and (rest := file.readline(_PIECE)):
                offset += len(rest)
                ended = rest.endswith(b"\n")
            error = LineError(f"The line is longer than {max_line_bytes} bytes.", code="line_too_long")
            yield Line(number=number, end=offset, size=0, error=error)
            continue
        if number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        yield _line(text, number, offset)


def _line(text: bytes, number: int, end: int) -> Line:
    try:
        if not text.strip():
            raise LineError("The line is empty.", code="empty_line")
        value = json_value(text)
    except LineError as exc:
        return Line(number=number, end=end, size=0, error=exc)
    except ValueError as exc:
        error = LineError(f"The line is not JSON: {exc}"[:300], code="invalid_json")
        return Line(number=number, end=end, size=0, error=error)
    return Line(number=number, end=end, size=len(text), value=value)
