"""Plants bugs in a copy of the source, and finds the test that catches each bug."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from verification.mutants.mutant import MisplacedError, Mutant
from verification.mutants.pytest_fork import Ran, run_pytest
from verification.mutants.tree import Tree

TIMEOUT_S = 120
"""The time limit of one test with a bug. A test that hangs because of the bug fails at this limit. That
counts as catching the bug."""
WITHOUT_BUG_TIMEOUT_S = 1200
"""The time limit of one test without a bug. It is long, because other steps of CI may leave little CPU time."""
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
) -> Ran:
    """Run tests on the copy with ``workers`` processes."""
    options = ["-q", "-p", "no:cacheprovider", "-rfE", f"--timeout={timeout_s}", "--hypothesis-seed=1"]
    options += [f"-n{workers}", "--dist=loadfile"] if workers > 1 else []
    options += ["-x"] if stop else []
    # The whole run has a limit too, because a Hypothesis test may search on after `--timeout` has stopped one example.
    return run_pytest(tree.root, tree.path, [*options, *tests], limit_s=timeout_s + 60 * len(tests))


def failures_without_bug(tree: Tree, tests: Sequence[str], *, workers: int = 0) -> str | None:
    """Run the tests on the copy without a bug. Returns ``None`` if all pass, and otherwise their output.

    A test that fails without a bug cannot show that it catches one.
    """
    ran = run(tree, sorted(set(tests)), stop=False, workers=workers, timeout_s=WITHOUT_BUG_TIMEOUT_S)
    return None if ran.code == 0 else ran.output[-6000:]


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
                output += ran.output[-3000:]
                if ran.code == 1 or ran.timed_out:
                    return result(_name(ran.output, test), output=output)
                if ran.code != 0:
                    return result(error=f"no result: pytest exited with {ran.code}", output=output)
    except MisplacedError as exc:
        return result(error=str(exc))
    return result(output=output)


def _name(output: str, requested: str) -> str:
    """The test that failed. After a timeout, the output names no test, so this returns the requested one."""
    found = _FAILED.search(output)
    return (found.group(1) if found else requested).removeprefix("services/python/tests/")
