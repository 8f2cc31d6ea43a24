"""No text of an input, and no password, is in a line of the log, however an error quotes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.observability.redaction import REPLACEMENT, WINDOW, Redactor

PROMPT = 'a "red" circle\nthat moves left, in the style of Žižek'


def redacted(line: str, *inputs: object) -> str:
    return Redactor(lambda: inputs)(line)


@pytest.mark.parametrize(
    "quoted",
    [
        PROMPT,
        PROMPT[:30],
        PROMPT[20:],
        repr(PROMPT),
        json.dumps(PROMPT),
        json.dumps(PROMPT, ensure_ascii=False),
    ],
    ids=["whole", "beginning", "end", "repr", "JSON", "JSON in UTF-8"],
)
@pytest.mark.parametrize(
    "given_as", [{"prompt": PROMPT}, json.dumps({"a": [{"b": PROMPT}]})], ids=["value", "JSON"]
)
def test_a_quoted_input_is_replaced(quoted: str, given_as: object) -> None:
    line = redacted(f"cannot draw {quoted} with 3 ranks", given_as)
    assert REPLACEMENT in line
    assert line.startswith("cannot draw")
    assert line.endswith("with 3 ranks")
    for at in range(len(PROMPT) - WINDOW):
        assert PROMPT[at : at + WINDOW] not in line


def test_a_short_input_is_replaced_where_it_is_a_whole_word() -> None:
    assert redacted("a cat sat on a catalogue", {"prompt": "cat"}) == "a [input] sat on a catalogue"


def test_other_lines_stay_as_they_are() -> None:
    assert redacted("cannot reach Redis; trying again", {"prompt": PROMPT}, "not JSON", None, 7) == (
        "cannot reach Redis; trying again"
    )
    assert redacted("nothing is known") == "nothing is known"


def test_a_password_in_a_url_is_masked() -> None:
    assert "hunter2" not in redacted("cannot reach redis://daybreak:hunter2@redis:6379/0: refused")


@given(prompt=st.text(min_size=WINDOW, max_size=60), before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_window_of_an_input_survives(prompt: str, before: str, after: str) -> None:
    line = redacted(f"{before}{prompt}{after}", {"prompt": prompt})
    for at in range(len(prompt) - WINDOW + 1):
        assert prompt[at : at + WINDOW] not in line.replace(REPLACEMENT, "\ue000")
