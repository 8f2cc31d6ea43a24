"""Every bug of the catalogue fits the current source, and the tests that should catch it exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from verification.mutants import __main__ as program
from verification.mutants.__main__ import main, share_of
from verification.mutants.catalogue import CATALOGUE
from verification.mutants.mutant import Edit, MisplacedError, Mutant
from verification.mutants.mutant_run import MutantRun
from verification.mutants.tree import REPOSITORY


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)
def test_every_bug_can_be_planted(mutant: Mutant) -> None:
    """Each text that a mutant replaces is in its file exactly once. If you change the text, change the mutant too."""
    mutant.texts(REPOSITORY)
    assert all(edit.old != edit.new for edit in mutant.edits)
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}(" in text or not name, f"{file} has no {name}"


def test_the_catalogue_has_many_bugs_with_unique_names() -> None:
    """docs/reliability.md shows how many of these bugs the tests catch."""
    assert len({mutant.name for mutant in CATALOGUE}) == len(CATALOGUE) >= 60


@pytest.mark.parametrize("text", ["", "x = 1\nx = 1\n"])
def test_a_bug_without_a_unique_place_is_an_error(text: str) -> None:
    """If the text to replace is missing, or is there twice, this is an error. The bug does not count as caught."""
    with pytest.raises(MisplacedError, match="expected once"):
        Edit("f.py", "x = 1", "x = 2").applied(text)


def test_a_bug_that_breaks_the_syntax_is_an_error(tmp_path: Path) -> None:
    """Python cannot import such a file, so its tests fail. Such a failure does not show that a test catches the bug."""
    (tmp_path / "f.py").write_text("if x:\n    y()\n")
    bug = Mutant("empty-block", "y is not called", (Edit("f.py", "    y()\n", ""),), ("test_it.py",))
    with pytest.raises(MisplacedError, match=r"f\.py with this bug is not Python"):
        bug.texts(tmp_path)


def test_two_edits_of_one_file_are_both_applied(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("a = 1\nb = 1\n")
    edits = (Edit("f.py", "a = 1", "a = 2"), Edit("f.py", "b = 1", "b = 2"))
    assert Mutant("two", "both differ", edits, ("test_it.py",)).texts(tmp_path) == {"f.py": "a = 2\nb = 2\n"}


def test_three_consecutive_commits_plant_every_bug_once() -> None:
    """Each run of CI plants a third of the bugs. The number of commits decides which third."""
    thirds = [share_of(CATALOGUE, number, 3) for number in (1264, 1265, 1266)]
    planted = [mutant.name for third in thirds for mutant in third]
    assert sorted(planted) == sorted(mutant.name for mutant in CATALOGUE)
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


def test_a_share_can_be_listed_and_an_invalid_share_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--share", "1265/3"]) == 0
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) == len(share_of(CATALOGUE, 2, 3))
    for wrong in ("1", "1/0", "a/3"):
        with pytest.raises(SystemExit):
            main(["--list", "--share", wrong])
        assert "is not a share" in capsys.readouterr().err


@pytest.mark.parametrize("failures", [None, "FAILED test_it.py::test_it"])
def test_no_bug_counts_if_its_tests_fail_without_it(
    failures: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one job, there is one copy of the source. If a test fails in the unchanged copy, no bug is planted."""
    planted: list[Mutant] = []

    def attempt(_tree: object, mutant: Mutant) -> MutantRun:
        planted.append(mutant)
        return MutantRun(mutant=mutant, seconds=1.0, caught_by="a test")

    monkeypatch.setattr(program, "Tree", lambda root: root)
    monkeypatch.setattr(program, "failures_without_bug", lambda *_, **__: failures)
    monkeypatch.setattr(program, "attempt", attempt)
    names = [mutant.name for mutant in CATALOGUE[:3]]
    code = main(["--jobs", "1", *(f"--only={name}" for name in names)])
    printed = capsys.readouterr().out
    if failures is None:
        assert (code, {mutant.name for mutant in planted} >= set(names)) == (0, True)
        assert "The tests pass without a bug" in printed
    else:
        assert (code, planted) == (2, [])
        assert failures in printed
        assert "fail without a planted bug" in printed
