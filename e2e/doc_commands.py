"""Commands of the documentation, run as they stand there: names are put in, nothing else is changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from testkit.log import say

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^# (\d)  ", re.MULTILINE)


class Page:
    """A page of docs/."""

    def __init__(self, name: str) -> None:
        self._text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    def section(self, heading: str) -> str:
        """The text below a heading, up to the next heading. :raises AssertionError: when there is none."""
        without_code = _FENCED.sub(lambda found: re.sub(r"^#", "·", found[0], flags=re.MULTILINE), self._text)
        marked = re.search(
            rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", without_code, re.MULTILINE | re.DOTALL
        )
        assert marked is not None, f"no heading {heading!r}"
        return self._text[marked.start(1) : marked.end(1)]

    def commands(self, heading: str) -> list[str]:
        """The blocks of shell commands below a heading."""
        return [code for kind, code in _FENCED.findall(self.section(heading)) if kind == "bash"]


def step(block: str, *numbers: int) -> str:
    """These steps of a block, each of which begins with `# <number>  what it does`."""
    at = [(int(found[1]), found.start()) for found in _STEP.finditer(block)]
    ends = [start for _, start in at[1:]] + [len(block)]
    parts = {number: block[start:end] for (number, start), end in zip(at, ends, strict=True)}
    return "".join(parts[number] for number in numbers)


class Shell:
    """Bash in a folder with the chart, where Daybreak's namespace is the tests' own."""

    def __init__(self, folder: Path, *, namespace: str, url: str = "") -> None:
        self.folder = folder
        self._namespace = namespace
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, **({"DAYBREAK_URL": url} if url else {})}
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def run(self, commands: str, names: Mapping[str, str] | None = None) -> str:
        """What they wrote; ``names``: the page's → the tests'. :raises AssertionError: at the first that fails."""
        for old, new in (names or {}).items():
            assert old in commands, f"{old!r} is not in the page's commands any more"
            commands = commands.replace(old, new)
        commands = re.sub(r"-n daybreak\b(?!-)", f"-n {self._namespace}", commands)
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        say(f"  the page's commands took {time.monotonic() - began:.1f} s:")
        for line in done.stdout.splitlines():
            say(f"    {line}")
        assert done.returncode == 0, f"exit code {done.returncode} of:\n{commands}\n{done.stdout}"
        return done.stdout
