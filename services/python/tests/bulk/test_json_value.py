"""JSON from a client gives a value that can be written as JSON again, or an error that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.workloads.json_value import json_value

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
ANY_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
)


@given(ANY_VALUE, st.booleans())
def test_a_value_is_read_if_it_can_be_written_as_json(value: Any, marked: bool) -> None:
    """This holds with and without a byte order mark."""
    data = b"\xef\xbb\xbf" * marked + json.dumps(value).encode()
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        with pytest.raises(ValueError, match=r"JSON|surrogate"):
            json_value(data)
    else:
        assert json_value(data) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"a": ["\\uD83D"]}', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'[{"a": 1, "b": 2, "b": 2}]', "an object has the key 'b' twice"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_an_error_says_what_is_wrong(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_value(data)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert json_value(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"
