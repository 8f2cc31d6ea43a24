"""Tests of ``daybreakd demo-serve``: it shows what it promises, and leaves no process behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import llama
from testkit.demo_process import DemoProcess

needs_llama = pytest.mark.skipif(
    llama.found() is None, reason=f"a llama.cpp server is not installed: {llama.INSTALL}"
)
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
Start = Callable[..., DemoProcess]


@needs_llama
def test_the_demo_wakes_balances_kills_and_falls_back(start_demo: Start) -> None:
    """A model at zero wakes and answers. Two workers share eight requests. The kill of a worker cuts off only the
    answer that this worker had begun. While a model wakes, another model answers for it."""
    demo = start_demo("demo-serve", "--llama", str(llama.FOLDER))
    code, output = demo.end(500)
    assert code == 0, output
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
    assert not demo.remaining()


@needs_llama
def test_ctrl_c_stops_every_process(start_demo: Start) -> None:
    demo = start_demo("demo-serve", "--llama", str(llama.FOLDER))
    demo.interrupt()
    code, output = demo.end(120)
    assert code == 130, output
    assert "Traceback" not in output
    assert not demo.remaining()


def test_without_the_wheels_the_demo_says_what_to_do(tmp_path: Path, start_demo: Start) -> None:
    no_index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null"}
    demo = start_demo("demo-serve", "--llama", str(tmp_path / "llama"), **no_index)
    code, output = demo.end(120)
    assert code == 1, output
    assert "the demo failed: pip cannot install llama.cpp" in output
    assert "PIP_INDEX_URL" in output
    assert "Traceback" not in output
