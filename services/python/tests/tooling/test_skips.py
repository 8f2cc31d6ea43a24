"""Tests of the summary of skipped tests, which names the programs that the machine lacks."""

from __future__ import annotations

import ast
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


OTHER_REASONS = {
    "… is not on PATH": "one of the programs above",
    "… not on PATH; on Debian: apt-get install …": "Prometheus",
    "its alerts have not fired": "another test has failed",
    "moto does not check signatures": "versitygw runs the test",
    "moto checks If-None-Match without a lock": "versitygw runs the test",
    "this machine has no ::1": "a property of the machine",
    "only Linux tells the range": "a property of the machine",
    "on this machine, the kernel chooses from … to …": "a property of the machine",
    "this machine has another range for the ports of clients": "a property of the machine",
    "there is no /dev/full": "a property of the machine",
    "calls malloc of glibc": "a property of the machine",
    "fast start was not tested with this Ray": "the installed Ray",
    "fast start was not tested with this Ray; test_stock_ray.py tests how this Ray starts": "the installed Ray",
    "make is not installed here": "the tests were not started with make",
}
"""Reasons for skips that the summary cannot explain better, and why."""


def test_the_summary_knows_every_reason() -> None:
    """The test finds the reasons for skips in the source of all other tests."""
    paths = [*TESTS.rglob("*.py"), *(REPOSITORY / "controlplane-sdk/tests").rglob("*.py")]
    calls = [
        call
        for path in paths
        if path != Path(__file__)
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("skip", "skipif", "importorskip"))
    ]
    reasons = {reason for call in calls if (reason := _reason(call)) is not None}
    assert len(reasons) > 30
    unknown = {reason for reason in reasons if not any(need.reason.search(reason) for need in NEEDS)}
    assert unknown == set(OTHER_REASONS)


def _reason(call: ast.Call) -> str | None:
    """The reason that a call of pytest's ``skip`` functions states. ``None`` if it is not a literal."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    stated = named or (call.args[:1] if ast.unparse(call.func).endswith(".skip") else [])
    if not stated:
        return None
    parts = stated[0].values if isinstance(stated[0], ast.JoinedStr) else stated[:1]
    if not any(isinstance(part, ast.Constant) for part in parts):
        return None
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
