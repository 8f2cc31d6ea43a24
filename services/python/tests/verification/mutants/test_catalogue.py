"""The planted bugs fit the source as it is, and the tests that should catch them exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from verification.mutants.__main__ import main, share_of
from verification.mutants.catalogue import CATALOGUE
from verification.mutants.mutant import Edit, MisplacedError, Mutant
from verification.mutants.tree import REPOSITORY


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


def test_three_commits_in_a_row_plant_every_bug_once() -> None:
    """CI takes a third, by the number of the commit."""
    thirds = [share_of(CATALOGUE, number, 3) for number in (1264, 1265, 1266)]
    assert sorted(one.name for third in thirds for one in third) == sorted(one.name for one in CATALOGUE)
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


def test_a_share_is_listed_and_what_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--share", "1265/3"]) == 0
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) == len(share_of(CATALOGUE, 2, 3))
    for wrong in ("1", "1/0", "a/3"):
        with pytest.raises(SystemExit):
            main(["--list", "--share", wrong])
        assert "no share" in capsys.readouterr().err
