"""Runs the commands that the documentation shows. Only names in these commands, such as the namespace, are replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from testkit.log import log

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 1800
"""After this time, a block of commands counts as hanging."""
_STEP = re.compile(r"^# (\d+)  ", re.MULTILINE)


class Page:
    """A page of docs/."""

    def __init__(self, name: str) -> None:
        self._text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    def section(self, heading: str) -> str:
        """The text from a heading to the next one. :raises AssertionError: if the heading does not exist."""
        # Hide the comments of code blocks from the search for headings. All offsets stay the same.
        without_code = _FENCED.sub(lambda match: re.sub(r"^#", "·", match[0], flags=re.MULTILINE), self._text)
        match = re.search(
            rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", without_code, re.MULTILINE | re.DOTALL
        )
        assert match is not None, f"the page has no heading {heading!r}"
        return self._text[match.start(1) : match.end(1)]

    def commands(self, heading: str) -> list[str]:
        """The blocks of shell commands below a heading."""
        return [code for kind, code in _FENCED.findall(self.section(heading)) if kind == "bash"]


def step(block: str, *numbers: int) -> str:
    """The steps with these numbers, from a block of commands. A step begins with `# <number>  what it does`."""
    starts = [(int(match[1]), match.start()) for match in _STEP.finditer(block)]
    ends = [start for _, start in starts[1:]] + [len(block)]
    parts = {number: block[start:end] for (number, start), end in zip(starts, ends, strict=True)}
    return "".join(parts[number] for number in numbers)


class Shell:
    """Runs Bash in a folder with the chart. Commands for the namespace `daybreak` use the tests' namespace instead."""

    def __init__(self, folder: Path, *, namespace: str, url: str = "") -> None:
        self.folder = folder
        self._namespace = namespace
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, **({"DAYBREAK_URL": url} if url else {})}
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def run(self, commands: str, names: Mapping[str, str] | None = None) -> str:
        """Run commands and return their output. ``names`` maps names on the page to the tests' names.

        :raises AssertionError: if a command fails, or if the commands no longer contain one of the names.
        :raises subprocess.TimeoutExpired: if the commands do not end.
        """
        for old, new in (names or {}).items():
            assert old in commands, f"the page's commands no longer contain {old!r}"
            commands = commands.replace(old, new)
        commands = re.sub(r"-n daybreak\b(?!-)", f"-n {self._namespace}", commands)
        started = time.monotonic()
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
        log(f"  the page's commands took {time.monotonic() - started:.1f} s:")
        for line in result.stdout.splitlines():
            log(f"    {line}")
        assert result.returncode == 0, f"exit code {result.returncode} of:\n{commands}\n{result.stdout}"
        return result.stdout
