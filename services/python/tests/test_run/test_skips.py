"""Tests of the summary of skipped tests, which names the programs that the machine lacks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.skip_summary import NEEDS, summary

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parents[2]


def test_skips_are_counted_by_the_missing_program_with_a_way_to_install_it() -> None:
    reasons = ["Skipped: no redis-server on PATH", "Skipped: there is no redis-server on PATH"]
    reasons += ["Skipped: helm is not on PATH: the chart cannot be rendered", "Skipped: moto checks nothing"]
    assert summary(reasons) == (
        "4 tests were skipped: 2 need Redis 7.0 (apt-get install redis-server); "
        "1 needs helm (https://helm.sh/docs/intro/install); 1 for other reasons."
    )


def test_a_run_without_skips_has_no_summary() -> None:
    assert summary([]) == ""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_ends_with_one_summary_of_its_skips(workers: str, tmp_path: Path) -> None:
    """The summary counts skips in tests and in fixtures, with and without xdist."""
    (tmp_path / "test_inside.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def server(): pytest.skip('no redis-server on PATH')\n"
        "def test_one(server): ...\n"
        "def test_two(): pytest.skip('kube-score is not on PATH')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "testkit.skip_summary", "-p", "no:cacheprovider", "-q"]
    result = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", "/dev/null", "-n", workers, str(tmp_path)],
        env={"PYTHONPATH": str(TESTS.parent), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("2 tests were skipped")]
    assert "1 needs Redis 7.0" in line
    assert "1 needs kube-score" in line


def test_the_summary_knows_every_program_that_tests_look_for() -> None:
    """The test finds the reasons for skips in the source of all other tests."""
    paths = [*TESTS.rglob("*.py"), *(REPOSITORY / "controlplane-sdk/tests").rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in paths if path != Path(__file__)]
    literal = re.compile(r"skip\(\s*f?\"([^\"{]*(?:on PATH|KUBECONFIG)[^\"]*)\"")
    reasons = [reason for text in texts for reason in literal.findall(text)]
    assert len(reasons) > 5
    assert not [reason for reason in reasons if not any(need.reason.search(reason) for need in NEEDS)]
