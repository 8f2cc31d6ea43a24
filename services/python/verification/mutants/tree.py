"""A private copy of the source, in which bugs are planted and removed again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verification.mutants.mutant import Mutant

REPOSITORY = Path(__file__).resolve().parents[4]
_PARTS = ("pyproject.toml", "conftest.py", "services/python", "controlplane-sdk")
_LEFT_OUT = shutil.ignore_patterns(".hypothesis", "*.egg-info")


class Tree:
    """A copy below ``root``.

    It includes the compiled modules, so that Python compiles only the files in which a bug is planted or removed.
    Python compiles a file again if its modification time or its size differs from the values in its compiled module. A
    copied file keeps its modification time, and a changed file gets a new one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in _PARTS:
            source, target = REPOSITORY / part, root / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=_LEFT_OUT)
            else:
                shutil.copy2(source, target)

    @property
    def path(self) -> tuple[Path, ...]:
        """The folders from which Python imports this copy instead of the installed packages."""
        return tuple(self.root / part for part in ("services/python/src", "controlplane-sdk/src"))

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """Plant the bug while the body of ``with`` runs. :raises MisplacedError: when it cannot be planted."""
        texts = mutant.texts(self.root)
        before = {self.root / file: (self.root / file).read_text(encoding="utf-8") for file in texts}
        try:
            for file, text in texts.items():
                (self.root / file).write_text(text, encoding="utf-8")
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")
