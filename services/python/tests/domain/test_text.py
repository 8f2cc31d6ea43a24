"""Any text becomes text that every store accepts; any name becomes one that every file system accepts."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.artifact_names import (
    NAME_MAX_BYTES,
    artifact_name,
    attachment,
    distinct_name,
    key_segment,
)
from daybreak_server.domain.tasks import Failed
from daybreak_server.domain.text import NAME_BYTES, short_name, storable

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)


@given(ANY_TEXT)
def test_any_text_becomes_storable(text: str) -> None:
    """The stored text is UTF-8 without NUL. Text that is already storable is not changed."""
    stored = storable(text)
    assert "\0" not in stored.encode().decode()
    assert storable(stored) == stored
    assert len(short_name(text).encode()) <= NAME_BYTES


def test_a_failure_can_always_be_stored() -> None:
    """If the store refused a failure, the task could not be settled, and would be released again and again."""
    failed = Failed(code="c\0de", message="caf\udce9" * 5000)
    assert failed.code == "c\\x00de"
    assert failed.message.startswith("caf\\udce9caf")
    assert len(failed.message) <= 2000


@given(ANY_TEXT)
def test_any_name_becomes_a_valid_artifact_name(wanted: str) -> None:
    """An artifact's name is normalized and bounded, and has neither separators nor a leading dot or hyphen.

    Its key is ASCII. A name that is already valid is not changed.
    """
    name = artifact_name(wanted)
    assert name
    assert len(name.encode()) <= NAME_MAX_BYTES
    assert not set(name) & set('/\\:*?"<>|\0\r\n')
    assert not name.startswith((".", "-"))
    assert unicodedata.is_normalized("NFC", name)
    assert artifact_name(name) == name
    assert key_segment(name).isascii()
    assert attachment(name).isascii()


@given(st.lists(ANY_TEXT, max_size=8))
def test_artifact_names_never_collide(wanted: list[str]) -> None:
    """Each file gets a name of its own, even where the file system ignores case."""
    taken: list[str] = []
    for name in wanted:
        taken.append(distinct_name(artifact_name(name), taken))
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in taken}) == len(taken)
    assert len({key_segment(name).lower() for name in taken}) == len(taken)
    assert all(len(name.encode()) <= NAME_MAX_BYTES for name in taken)
