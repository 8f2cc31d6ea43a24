"""Every line of a file has its number, whatever the line contains."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.engines.serving.bulk.jsonl import Line, read_lines


def lines_of(data: bytes, **options: Any) -> list[Line]:
    return list(read_lines(io.BytesIO(data), **{"max_line_bytes": 100, **options}))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\n", "empty_line"),
        (b" \t \r\n", "empty_line"),
        (b"{", "invalid_json"),
        (b"\xff\xfe\n", "invalid_json"),
        (b'{"a": NaN}\n', "invalid_json"),
        (b'{"a": 1e999}\n', "invalid_json"),
        (b'"\\ud800"\n', "invalid_json"),
        (b'"' + b"x" * 99 + b'"\n', "line_too_long"),
        (b'"' + b"x" * 300_000 + b'"', "line_too_long"),
        (b"[" * 100 + b"\n", "invalid_json"),
    ],
)
def test_a_line_without_a_value_says_why_and_keeps_its_number(data: bytes, code: str) -> None:
    """The lines before and after such a line are still read."""
    whole = b"1\n" + data + (b"" if data.endswith(b"\n") else b"\n") + b"2"
    first, bad, last = lines_of(whole)
    assert (first.value, last.value, last.number, last.end) == (1, 2, 3, len(whole))
    assert bad.error is not None
    assert (bad.error.code, bad.number, bad.end) == (code, 2, len(whole) - 1)


def test_a_line_may_be_as_long_as_the_limit() -> None:
    """The line break does not count towards the limit."""
    text = json.dumps("x" * 98).encode()
    assert len(text) == 100
    for end in (b"\n", b"\r\n", b""):
        (line,) = lines_of(text + end)
        assert line.value == "x" * 98


def test_a_byte_order_mark_is_passed_over_and_an_empty_file_has_no_lines() -> None:
    """Some editors on Windows write a byte order mark."""
    assert [line.value for line in lines_of(b"\xef\xbb\xbf1\r\n2\r\n")] == [1, 2]
    assert lines_of(b"") == []


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
            st.integers().map(lambda number: str(number).encode()),
            st.integers(101, 300).map(lambda size: b"x" * size),
        ),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
    st.data(),
)
def test_reading_behind_any_line_gives_the_rest(texts: list[bytes], ends: bool, data: st.DataObject) -> None:
    """An attempt can continue where an earlier one stopped. No line is lost or read twice."""
    whole = b"\n".join(texts) + (b"\n" if ends else b"")
    lines = lines_of(whole)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == len(texts) - (not ends and not texts[-1])
    if not lines:
        return
    at = data.draw(st.integers(0, len(lines) - 1))
    rest = lines_of(whole, number=lines[at].number, offset=lines[at].end)
    assert [(line.number, line.end, line.value) for line in rest] == [
        (line.number, line.end, line.value) for line in lines[at + 1 :]
    ]
