"""Scratch folders for a rank's attempts."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class ScratchDirs:
    """Gives each attempt an empty folder. Only one attempt runs at a time.

    At the end of the attempt, a folder with files is removed. An empty folder is kept for the next attempt. If each
    task had a new folder, making and removing the folder would be most of the leader's work for an instant task.
    """

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._spare: Path | None = None

    @contextlib.contextmanager
    def scratch_dir(self) -> Iterator[Path]:
        """Give an attempt its folder. :raises OSError: if no folder can be made."""
        folder, self._spare = self._spare, None
        if folder is None or not folder.is_dir():
            folder = self._make()
        try:
            yield folder
        finally:
            if _is_empty(folder):
                self._spare = folder
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the spare folder."""
        folder, self._spare = self._spare, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self) -> Path:
        if self._parent is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="daybreak-", dir=self._parent))


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
