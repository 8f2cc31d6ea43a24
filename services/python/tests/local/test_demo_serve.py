"""Tests of ``daybreakd demo-serve``: it shows what it promises, and leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daybreak_server.local import reaper
from daybreak_server.local.instance import instance_tag
from testkit import llama
from testkit.waiting import wait_until

# A background shell ignores SIGINT, and its children inherit that. So the program restores the default.
DEMO = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from daybreak_server.cli.main import run
run()
"""
needs_llama = pytest.mark.skipif(
    llama.found() is None, reason=f"a llama.cpp server is not installed: {llama.INSTALL}"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(folder: Path, environment_folder: Path = llama.FOLDER, **variables: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
    return subprocess.Popen(
        [sys.executable, "-c", DEMO, "demo-serve", "--llama", str(environment_folder)],
        cwd=folder,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def remaining(folder: Path) -> list[int]:
    return reaper.tagged(instance_tag(folder / ".daybreak" / "demo-serve"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    wait_until(lambda: not remaining(tmp_path), 60, "all processes of the demo to end")


@needs_llama
def test_the_demo_wakes_balances_kills_and_falls_back(folder: Path) -> None:
    """A model at zero answers, two workers share eight requests, a killed worker costs only answers that had begun."""
    process = start(folder)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert re.search(r"^  > .*sky", output, re.MULTILINE), output
    assert re.search(r"s  starting$", output, re.MULTILINE), output
    shares = dict(re.findall(r"^  (worker-\d|both) +(\d+) +\d+ +[\d.]+$", output, re.MULTILINE))
    assert shares.pop("both") == "8", output
    assert set(shares) == {"worker-1", "worker-2"}
    assert all(int(share) >= 2 for share in shares.values()), output
    assert re.search(
        r"^  6 requests whose answer had not begun: all answered.* worker-2 6$", output, re.MULTILINE
    ), output
    assert re.search(r"1 answer that had begun on worker-1: broke off", output), output
    assert re.search(r"1 answer that had begun on worker-2: complete", output), output
    assert "'second' was asked, and 'smol' answered" in output
    assert "'second' was asked, and 'second' answered" in output
    assert not remaining(folder)


@needs_llama
def test_ctrl_c_stops_every_process(folder: Path) -> None:
    process = start(folder)
    wait_until(lambda: remaining(folder), 60, "the first process of the demo")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not remaining(folder)


def test_without_the_wheels_the_demo_says_what_to_do(folder: Path) -> None:
    process = start(
        folder, folder / "llama", PIP_NO_INDEX="1", PIP_FIND_LINKS="/nonexistent", PIP_CONFIG_FILE="/dev/null"
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "the demo failed: pip cannot install llama.cpp" in output
    assert "PIP_INDEX_URL" in output
    assert "Traceback" not in output
