"""Plants bugs in a copy of the source, and finds the test that catches each bug."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from verification.mutants.mutant import MisplacedError, Mutant
from verification.mutants.tree import Tree

TIMEOUT_S = 120
"""The time limit of one test with a bug. A test that hangs because of the bug fails at this limit. That
counts as catching the bug."""
WITHOUT_BUG_TIMEOUT_S = 1200
"""The time limit of one test without a bug. It is long, because other steps of CI may leave little CPU time."""
_TIMED_OUT, _KILLED = 124, 137
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py.*?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantRun:
    """The result of one mutant. ``caught_by``: the test that failed. ``error``: why the run does not count."""

    mutant: Mutant
    seconds: float
    caught_by: str | None = None
    error: str | None = None
    output: str = ""

    @property
    def line(self) -> str:
        """One line for the terminal."""
        what = self.error or (f"caught by {self.caught_by}" if self.caught_by else "SURVIVED")
        return f"{self.mutant.name:<34} {self.seconds:5.1f} s  {what}"


def run(
    tree: Tree, tests: Sequence[str], *, stop: bool = True, workers: int = 0, timeout_s: int = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run tests on the copy with ``workers`` processes. The stdout of the result includes stderr."""
    options = ["-q", "-p", "no:cacheprovider", "-rfE", f"--timeout={timeout_s}", "--hypothesis-seed=1"]
    options += [f"-n{workers}", "--dist=loadfile"] if workers > 1 else []
    # The whole run has a limit too, because a Hypothesis test may search on after `--timeout` has stopped one example.
    # `timeout` also ends the tests' servers.
    limit = ["timeout", "--kill-after=5", str(timeout_s + 60 * len(tests))]
    command = [
        *limit,
        "env",
        f"PYTHONPATH={tree.path}",
        "PYTHONDONTWRITEBYTECODE=1",
        sys.executable,
        "-m",
        "pytest",
    ]
    return subprocess.run(
        [*command, *options, *(["-x"] if stop else []), *tests],
        check=False,
        cwd=tree.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def failures_without_bug(tree: Tree, tests: Sequence[str], *, workers: int = 0) -> str | None:
    """Run the tests on the copy without a bug. Returns ``None`` if all pass, and otherwise their output.

    A test that fails without a bug cannot show that it catches one.
    """
    ran = run(tree, sorted(set(tests)), stop=False, workers=workers, timeout_s=WITHOUT_BUG_TIMEOUT_S)
    return None if ran.returncode == 0 else ran.stdout[-6000:]


def attempt(tree: Tree, mutant: Mutant) -> MutantRun:
    """Plant one bug and run its tests, one after the other, until a test fails."""
    began = time.perf_counter()

    def result(caught_by: str | None = None, error: str | None = None, output: str = "") -> MutantRun:
        seconds = round(time.perf_counter() - began, 2)
        return MutantRun(mutant=mutant, seconds=seconds, caught_by=caught_by, error=error, output=output)

    output = ""
    try:
        with tree.planted(mutant):
            for test in mutant.tests:
                ran = run(tree, [test])
                output += ran.stdout[-3000:]
                if ran.returncode in (1, _TIMED_OUT, _KILLED):
                    return result(_name(ran.stdout, test), output=output)
                if ran.returncode != 0:
                    return result(error=f"does not count: pytest exited with {ran.returncode}", output=output)
    except MisplacedError as exc:
        return result(error=str(exc))
    return result(output=output)


def _name(output: str, requested: str) -> str:
    """The test that failed. After a timeout, the output names no test, so this returns the requested one."""
    found = _FAILED.search(output)
    return (found.group(1) if found else requested).removeprefix("services/python/tests/")
