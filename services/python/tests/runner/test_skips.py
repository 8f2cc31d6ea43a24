"""The line at the end of a run that says what its machine lacks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.skip_summary import NEEDS, summary

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parents[2]


def test_skips_are_counted_by_what_is_missing_and_how_to_get_it() -> None:
    reasons = ["Skipped: no redis-server on PATH", "Skipped: there is no redis-server on PATH"]
    reasons += ["Skipped: helm is not on PATH: the chart cannot be rendered", "Skipped: moto checks nothing"]
    assert summary(reasons) == (
        "4 tests were skipped: 2 need Redis 7.0 (apt-get install redis-server); "
        "1 need helm (https://helm.sh/docs/intro/install); 1 for other reasons."
    )


def test_without_skips_there_is_no_line() -> None:
    assert summary([]) == ""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_line_is_the_runs_last_word_on_skips(workers: str, tmp_path: Path) -> None:
    """With and without xdist, for skips in a test and in a fixture."""
    (tmp_path / "test_inside.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def server(): pytest.skip('no redis-server on PATH')\n"
        "def test_one(server): ...\n"
        "def test_two(): pytest.skip('kube-score is not on PATH')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "testkit.skip_summary", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", "/dev/null", "-n", workers, str(tmp_path)],
        env={"PYTHONPATH": str(TESTS.parent), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("2 tests were skipped")]
    assert "1 need Redis 7.0" in line
    assert "1 need kube-score" in line


def test_every_program_that_tests_look_for_is_one_that_the_line_knows() -> None:
    """By the reasons that stand in the tests as text."""
    found = [*TESTS.rglob("*.py"), *(REPOSITORY / "controlplane-sdk/tests").rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in found if path.parent.name != "runner"]
    literal = re.compile(r"skip\(\s*f?\"([^\"{]*(?:on PATH|KUBECONFIG)[^\"]*)\"")
    reasons = [reason for text in texts for reason in literal.findall(text)]
    assert len(reasons) > 5
    assert not [reason for reason in reasons if not any(need.reason.search(reason) for need in NEEDS)]
