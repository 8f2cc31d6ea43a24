"""Tests that ``tools/words.py`` finds the words and names that we do not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[4] / "tools" / "words.py"


def check(path: Path) -> tuple[int, str]:
    """Run the tool on one file. Returns its exit code and output."""
    result = subprocess.run([sys.executable, TOOL, path], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.returncode, result.stdout


# Each word is written in two parts, so that the tool finds none in this file.
BANNED = "me" + "nd"
BANNED_NAME = "to" + "ld"
BANNED_PHRASE = "hands" + "\n  its task back"
BANNED_IN_NAME = "work" + "ed_off"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("page.md", f"# Title\n\nThe operator can {BANNED} it.\n", 3),
        ("page.md", f"The group {BANNED_PHRASE}.\n", 1),
        ("script.lua", f"local x = 1\n-- {BANNED} the queue\n", 2),
        ("module.py", f'"""A module.\n\nIt can {BANNED} things.\n"""\n', 3),
        ("module.py", f"x = 1\n# First line.\n# {BANNED}\ny = 2\n", 3),
        ("module.py", "x = 1\n\n# It is\n# " + BANNED_NAME + " so.\n", 3),
    ],
)
def test_a_banned_word_in_prose_is_found(tmp_path: Path, name: str, text: str, line: int) -> None:
    """The tool reads pages, scripts, docstrings and comments. It finds a phrase that continues on the next line."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    code, output = check(path)
    assert code == 1
    use, summary = output.splitlines()
    assert use.startswith(f"{path}:{line}: ")
    assert "→" in use
    assert summary.startswith("1 to rewrite")


def test_a_banned_name_in_code_is_found(tmp_path: Path) -> None:
    """The output has the line, the name and a replacement."""
    path = tmp_path / "module.py"
    path.write_text(f"answer = 1\n{BANNED_NAME} = answer\n", encoding="utf-8")
    code, output = check(path)
    assert code == 1
    assert f'{path}:2: "{BANNED_NAME}" → say what it holds' in output


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("module.py", f"def _not_{BANNED_NAME}() -> None: ...\n", 1),
        ("module.py", f"class Not{BANNED_NAME.capitalize()}: ...\n", 1),
        ("module.py", f"x = 1\n_{BANNED_NAME.upper()}_S = x\n", 2),
        ("script.lua", f"local x = 1\nlocal function note_{BANNED_NAME}() end\n", 2),
        ("script.lua", f"call('HSET', key, '{BANNED_NAME}', x)\n", 1),
    ],
)
def test_a_banned_word_is_found_as_a_part_of_a_name(tmp_path: Path, name: str, text: str, line: int) -> None:
    """Names of functions, classes, constants and keys are split into their words."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    code, output = check(path)
    assert code == 1
    assert output.startswith(f"{path}:{line}: ")


def test_a_preposition_may_be_the_name_of_a_method_only(tmp_path: Path) -> None:
    """``Endpoint.of(settings)`` says what it is. A variable with this name does not."""
    path = tmp_path / "module.py"
    path.write_text("def of(x): ...\n\n\ny = Endpoint.of(1)\nof = y\n", encoding="utf-8")
    code, output = check(path)
    assert code == 1
    assert output.startswith(f'{path}:5: "of" → ')
    assert "1 to rewrite" in output


def test_a_banned_phrase_in_a_name_is_found(tmp_path: Path) -> None:
    """The tool reads the underscores of a name as spaces. A single word of a banned phrase is not banned."""
    path = tmp_path / "module.py"
    path.write_text(f"one_turn = 1\n\n\ndef _{BANNED_IN_NAME}() -> None: ...\n", encoding="utf-8")
    code, output = check(path)
    assert code == 1
    assert f'{path}:4: "{BANNED_IN_NAME.replace("_", " ")}" → process' in output
    assert "1 to rewrite" in output


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """With a mistyped path, the tool must not report that there are no banned words."""
    result = subprocess.run(
        [sys.executable, TOOL, tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "no such file or folder" in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", f"The group releases its task. `{BANNED}` is code.\n\n```\n{BANNED}\n```\n"),
        ("page.md", "Amendments, one by one; a recommended order.\n"),
        ("module.py", f'"""A module that retries."""\n\nreported = 1  # see `{BANNED_NAME}`\n'),
    ],
)
def test_plain_text_and_quoted_code_pass(tmp_path: Path, name: str, text: str) -> None:
    """The tool compares whole words only, and skips code."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert check(path) == (0, "words: plain English, and the field's terms\n")
