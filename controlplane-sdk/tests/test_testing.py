"""`daybreak.testing` starts a Daybreak for users' own tests, and leaves nothing behind, however those tests end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from daybreak import DaybreakError, testing
from daybreak.testing import LocalDaybreak

PAGE = Path(__file__).parents[2] / "docs" / "06-client.md"
KILLED = """
from daybreak.testing import LocalDaybreak
running = LocalDaybreak()
running.start()
print(*running.pids.values(), flush=True)
input()
"""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(look: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 90
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which this process and its child processes create their temporary folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_the_examples_of_the_page_run(tmp_path: Path, temporary: Path) -> None:
    """The conftest and the test of docs/06-client.md pass unchanged under pytest, and no folder is left behind."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    conftest, test = (block for block in blocks if block.startswith(("# conftest.py", "# test_")))
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_mine.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", str(tmp_path)]
    command += [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
    ]  # pytest-asyncio warns if it has no settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert not list(temporary.glob("daybreak-*"))


def test_nothing_remains_after_its_owner_is_killed(temporary: Path) -> None:
    """After `kill -9` of the server's owner, the server and its Valkey end soon, and its folder is deleted."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        owner.kill()
    wait_until(lambda: not any(map(alive, pids)), "the server's processes still run")
    wait_until(lambda: not list(temporary.glob("daybreak-*")), "the server's folder still exists")


def test_a_failed_start_reports_the_log(temporary: Path) -> None:
    """The error contains the server's log, and nothing is left behind."""
    with pytest.raises(DaybreakError, match=r"DAYBREAK_HTTP__PROT: there is no such setting"):
        LocalDaybreak({"DAYBREAK_HTTP__PROT": "1"}).start()
    assert not list(temporary.iterdir())


def test_a_server_that_was_not_started_says_so() -> None:
    """Without `start()`, reading a URL or the log raises an error with the reason. A second `close()` is allowed."""
    never = LocalDaybreak()
    for look in (lambda: never.url, lambda: never.redis_url, never.log):
        with pytest.raises(DaybreakError, match="started"):
            look()
    never.close()
    never.close()


def test_the_kernel_gives_the_servers_port_to_no_client() -> None:
    """Linux chooses the ports of clients' connections from 32,768 on, unless it is configured otherwise."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if first < 32_000:
        pytest.skip("this machine has another range for the ports of clients")
    assert all(20_000 <= testing._free_port() < first for _ in range(20))
