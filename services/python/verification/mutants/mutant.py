"""A planted bug (a *mutant*) as a value."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

SERVER = "services/python/src/daybreak_server"
CLIENT = "controlplane-sdk/src/daybreak"
LUA = f"{SERVER}/adapters/redis/lua"
TESTS = "services/python/tests"


class MisplacedError(Exception):
    """The bug does not fit the source, which has changed. The mutant must change too."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces ``old`` by ``new`` in ``file`` (relative to the repository)."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """``text`` with the bug. :raises MisplacedError: unless ``text`` has ``old`` exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise MisplacedError(
                f"{self.file} has {self.old!r} {count} times, expected once; update the planted bug"
            )
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug and the tests that should catch it, the cheapest first. All paths are relative to the repository."""

    name: str
    about: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    waits: bool = False
    """Whether a test that catches the bug waits, for up to a minute, for something that never happens. Such bugs are
    planted first."""

    def texts(self, root: Path) -> dict[str, str]:
        """The files with the bug, each with its new text. The source tree at ``root`` is not changed.

        :raises MisplacedError: when the tree has no place for the bug, or when a file with the bug is not valid Python.
        """
        texts: dict[str, str] = {}
        for edit in self.edits:
            text = texts.get(edit.file) or (root / edit.file).read_text(encoding="utf-8")
            texts[edit.file] = edit.applied(text)
        for file, text in texts.items():
            if file.endswith(".py"):
                try:
                    ast.parse(text, file)
                except SyntaxError as exc:
                    raise MisplacedError(
                        f"{file} with this bug is not Python ({exc}); update the planted bug"
                    ) from exc
        return texts


def mutant(
    name: str, about: str, *edits: tuple[str, str, str], tests: tuple[str, ...] | str, waits: bool = False
) -> Mutant:
    """Create a :class:`Mutant`. Each of ``edits`` is a plain tuple of ``file``, ``old`` and ``new``."""
    chosen = (tests,) if isinstance(tests, str) else tests
    return Mutant(name, about, tuple(Edit(*edit) for edit in edits), chosen, waits)
