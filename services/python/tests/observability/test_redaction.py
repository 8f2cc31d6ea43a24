"""The log hides passwords and the inputs that the process remembers, however an error quotes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain import private_inputs
from daybreak_server.domain.private_inputs import INPUT_CHARS, RECENT, RECENT_CHARS, PrivateInput, _Texts
from daybreak_server.observability.redaction import LONGEST, REPLACEMENT, WINDOW, Redactor

PROMPT = 'a "red" circle\nthat moves left, in the style of Žižek'


def redacted(line: str, *inputs: object, task: str = "") -> str:
    """The line after redaction, if ``inputs`` are known as inputs of the task ``video_1``."""
    known = tuple(PrivateInput.of(value, "video_1") for value in inputs)
    return Redactor(lambda: known)(line, task=task)


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


def test_a_short_text_is_replaced_where_it_is_quoted() -> None:
    for line in (
        "refused: input_value='red cat', then",
        'refused: "red cat", then',
        "refused: `red cat`, then",
    ):
        assert redacted(line, {"prompt": "red cat"}) == line.replace("red cat", REPLACEMENT)


def test_a_short_text_is_replaced_as_a_whole_word_in_errors_of_its_own_task_only() -> None:
    line = "a cat sat on a catalogue"
    assert redacted(line, {"prompt": "cat"}, task="video_1") == "a [input] sat on a catalogue"
    assert redacted(line, {"prompt": "cat"}, task="video_2") == line


def test_no_input_blots_out_words_of_other_lines() -> None:
    line = "pool video: cannot tick: Redis cannot be reached: Timeout; retrying"
    assert redacted(line, {"prompt": ["pool", "Redis", "cannot", "Timeout", "retrying"]}) == line


def test_keys_of_mappings_are_private_but_not_the_names_of_the_workload_s_fields() -> None:
    value = {"known_to_everybody": {"a key that names a person": 1, "Ann": 2}}
    line = "cannot use 'known_to_everybody': no a key that names a person, no 'Ann'"
    assert redacted(line, value) == "cannot use 'known_to_everybody': no [input], no '[input]'"


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


@pytest.fixture
def no_inputs() -> None:
    """Forget the inputs that other tests have sent."""
    for _ in range(RECENT):
        private_inputs.keep("")


@pytest.mark.usefixtures("no_inputs")
def test_what_is_remembered_is_bounded() -> None:
    """Even large inputs take little memory. Until an input is added, ``known`` returns the same object."""
    others = set(private_inputs.known())  # inputs of tasks that still run
    for number in range(40):
        private_inputs.keep({"prompt": f"{number}" + "x" * 1_000_000, "numbers": list(range(100_000))})
    known = [found for found in private_inputs.known() if found not in others]
    assert all(found.chars <= INPUT_CHARS for found in known)
    assert 0 < sum(found.chars for found in known) <= RECENT_CHARS
    for number in range(2 * RECENT):
        private_inputs.keep({"prompt": f"prompt number {number} of a batch"})
    assert len(set(private_inputs.known()) - others) == RECENT
    assert private_inputs.known() is private_inputs.known()


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.one_of(
            st.text(), st.text().map(lambda text: text * 1000), st.integers(), st.none(), st.lists(st.text())
        ),
        max_size=80,
    )
)
def test_a_mapping_of_single_values_has_the_texts_that_any_value_has(value: dict[str, object]) -> None:
    """A small mapping without nested values takes a faster path through the code."""
    assert PrivateInput.of(value).texts == tuple(_Texts().of(value))


@pytest.mark.usefixtures("no_inputs")
def test_the_input_of_a_running_task_is_remembered_until_it_ends() -> None:
    redact = Redactor()
    with private_inputs.running(json.dumps({"prompt": PROMPT}), "video_1"):
        for number in range(2 * RECENT):
            private_inputs.keep({"prompt": f"prompt number {number} of a batch"})
        assert REPLACEMENT in redact(f"cannot draw {PROMPT}")
    assert REPLACEMENT in redact(f"cannot draw {PROMPT}")
    for number in range(RECENT):
        private_inputs.keep({"prompt": f"prompt number {number} of a batch"})
    assert PROMPT in redact(f"cannot draw {PROMPT}")


def test_a_long_line_loses_its_middle() -> None:
    line = redacted("begin" + "x" * 10 * LONGEST + "end", {"prompt": PROMPT})
    assert len(line) <= LONGEST
    assert line.startswith("begin")
    assert line.endswith("end")
