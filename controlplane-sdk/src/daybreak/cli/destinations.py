"""What ``-o`` means: a file, a folder or stdout, and whether it can be written before any work is done."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from daybreak.cli.exit_codes import UsageError
from daybreak.cli.output import write_content
from daybreak.core import targets
from daybreak.sync import Client
from daybreak.wire import Artifact, Task

OUT = Path("out")


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A file that arrived. ``path`` is ``None`` where its bytes went to stdout."""

    path: Path | None
    artifact: Artifact


@dataclass(frozen=True)
class Place:
    """Where files go. ``wanted``: what ``-o`` said; ``None`` where it was not given."""

    wanted: str | None

    @classmethod
    def of(cls, wanted: str | None, *, as_json: bool) -> Place:
        """What ``-o`` said. Raises ``UsageError`` for stdout where that takes no file."""
        if wanted == "":
            raise UsageError("-o '' names no file")
        place = cls(wanted)
        if place.stdout and as_json:
            raise UsageError("-o - and --json both want stdout: give the file a name")
        if place.stdout and sys.stdout.isatty():
            raise UsageError(
                "-o - would write the file to the terminal: send it to a program, or give it a name"
            )
        return place

    @property
    def stdout(self) -> bool:
        """Whether the bytes go to stdout, under whichever name."""
        return self.wanted is not None and targets.is_stdout(self.wanted)

    def check(self, name: str) -> None:
        """Find out whether a file of that name could be written. Raises ``OSError`` when it could not."""
        if not self.stdout:
            targets.check(self.wanted if self.wanted is not None else OUT / name, name)

    def bring(self, client: Client, task: Task, artifact: Artifact, *, default: Path) -> Brought:
        """Download an artifact to it; to ``default`` where ``-o`` was not given."""
        if not self.stdout:
            path = client.download(task, artifact.name, self.wanted if self.wanted is not None else default)
            return Brought(path=path, artifact=artifact)
        # Only what is whole and checked is written: it cannot be taken back.
        with tempfile.TemporaryDirectory(prefix="daybreak-") as folder:
            whole = client.download(task, artifact.name, Path(folder) / "whole")
            write_content(whole)
        return Brought(path=None, artifact=artifact)
