"""Test of ``daybreakd demo-speech``: two languages at once, eight users, and no process left behind."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from testkit.demo_process import DemoProcess
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
Start = Callable[..., DemoProcess]


def test_the_demo_translates_all_sentences_for_all_users(start_demo: Start) -> None:
    demo = start_demo("demo-speech")
    code, output = demo.end(500)
    assert code == 0, output[-4000:]
    assert "3 of 3 sentences exactly right" in output
    assert "24 of 24 sentences exactly right" in output
    growing = re.findall(r"German   (zeig.*)", output)
    assert growing[-1].startswith(growing[0]), growing
    assert len(growing) > 5, "the text did not grow word by word"
    lines = re.findall(r"^ +\d+\.\d s +(\d) +(\d+) +(\d+) +(?:\d\.\d\d s|-)$", output, re.MULTILINE)
    assert max(users for users, _, _ in lines) == "8", output
    words = [int(words) for _, _, words in lines]
    assert 0 < words[0] < words[-1], "the progress of eight users did not grow"
    assert re.search(r"decode batches: \d+, \d+\.\d sessions on average", output)
    wait_until(lambda: not demo.remaining(), 60, "all processes of the demo to end")
