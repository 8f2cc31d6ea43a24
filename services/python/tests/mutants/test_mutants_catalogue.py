"""The planted bugs fit the source as it is, and the tests that should catch them exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from mutants.catalogue import CATALOGUE
from mutants.mutant import Edit, MisplacedError, Mutant
from mutants.tree import REPOSITORY


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)
def test_it_can_be_planted(mutant: Mutant) -> None:
    """Each text to replace is there exactly once; who changes that line changes the mutant with it."""
    mutant.check(REPOSITORY)
    assert all(edit.old != edit.new for edit in mutant.edits)
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}(" in text or not name, f"{file} has no {name}"


def test_there_are_many_and_each_has_a_name() -> None:
    """The bugs that docs/reliability.md speaks of."""
    assert len({mutant.name for mutant in CATALOGUE}) == len(CATALOGUE) >= 60


@pytest.mark.parametrize("text", ["", "x = 1\nx = 1\n"])
def test_a_bug_that_has_no_one_place_is_an_error(text: str) -> None:
    """Neither missing nor ambiguous: then the run says so instead of counting it as caught."""
    with pytest.raises(MisplacedError, match="not one"):
        Edit("f.py", "x = 1", "x = 2").applied(text)
