"""Test of ``daybreakd demo-speech``: two languages at once, eight users, and no process left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak_server.local import reaper
from daybreak_server.local.instance import instance_tag
from testkit.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMMAND = "from daybreak_server.cli.main import run; run()"


def test_the_demo_translates_all_sentences_for_all_users(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "demo-speech"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "3 of 3 sentences exactly right" in done.stdout
    assert "24 of 24 sentences exactly right" in done.stdout
    growing = re.findall(r"German   (zeig.*)", done.stdout)
    assert growing[-1].startswith(growing[0]), growing
    assert len(growing) > 5, "the text did not grow word by word"
    lines = re.findall(r"^ +\d+\.\d s +(\d) +(\d+) +(\d+) +(?:\d\.\d\d s|-)$", done.stdout, re.MULTILINE)
    assert max(users for users, _, _ in lines) == "8", done.stdout
    words = [int(words) for _, _, words in lines]
    assert 0 < words[0] < words[-1], "the progress of eight users did not grow"
    assert re.search(r"decode batches: \d+, \d+\.\d sessions on average", done.stdout)
    folder = tmp_path / ".daybreak" / "demo-speech"
    wait_until(lambda: not reaper.tagged(instance_tag(folder)), 60, "all processes of the demo to end")
