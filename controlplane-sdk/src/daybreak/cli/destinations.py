"""The destination that ``-o`` names: a file, a folder or stdout. Commands check it before their work starts."""

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
class DownloadedFile:
    """A downloaded file. ``path`` is ``None`` if its bytes went to stdout."""

    path: Path | None
    artifact: Artifact


@dataclass(frozen=True)
class Destination:
    """Where downloaded files go. ``path`` is the value of ``-o``, or ``None`` without ``-o``."""

    path: str | None

    @classmethod
    def of(cls, path: str | None, *, as_json: bool) -> Destination:
        """The destination for a value of ``-o``.

        Raises ``UsageError`` if the value is empty, or if it means stdout and stdout cannot be used.
        """
        if path == "":
            raise UsageError("-o '' is not a file name")
        destination = cls(path)
        if destination.stdout and as_json:
            raise UsageError("-o - and --json both write to stdout: name a file for -o")
        if destination.stdout and sys.stdout.isatty():
            raise UsageError(
                "-o - would write the file to the terminal: pipe it to a program, or name a file for -o"
            )
        return destination

    @property
    def stdout(self) -> bool:
        """Whether the destination is stdout, under any of its names."""
        return self.path is not None and targets.is_stdout(self.path)

    def check(self, name: str) -> None:
        """Check that a file with this name could be written. Raises ``OSError`` if it could not."""
        if not self.stdout:
            targets.check(self.path if self.path is not None else OUT / name, name)

    def download(self, client: Client, task: Task, artifact: Artifact, *, default: Path) -> DownloadedFile:
        """Download an artifact to this destination, or to ``default`` without ``-o``."""
        if not self.stdout:
            path = client.download(task, artifact.name, self.path if self.path is not None else default)
            return DownloadedFile(path=path, artifact=artifact)
        # What is written to stdout cannot be undone, so the file is downloaded and checked before it is written.
        with tempfile.TemporaryDirectory(prefix="daybreak-") as folder:
            complete = client.download(task, artifact.name, Path(folder) / "complete")
            write_content(complete)
        return DownloadedFile(path=None, artifact=artifact)
