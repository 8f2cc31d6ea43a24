"""Tests of ``daybreakd demo``: it makes a video, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from daybreak_server.local import reaper
from daybreak_server.local.instance import instance_tag
from daybreak_server.workloads.video.pipeline.encode import read_mp4
from testkit.waiting import wait_until
from verification.tiny_wan import check

# A background shell ignores SIGINT, and its children inherit that. So the program restores the default.
DEMO = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from daybreak_server.cli.main import run
run()
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DAYBREAK_")}
    return subprocess.Popen(
        [sys.executable, "-c", DEMO, "demo"],
        cwd=folder,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def remaining(folder: Path) -> list[int]:
    return reaper.tagged(instance_tag(folder / ".daybreak" / "demo"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    wait_until(lambda: not remaining(tmp_path), 60, "all processes of the demo to end")


def test_the_demo_makes_the_video_that_its_prompt_describes(folder: Path) -> None:
    """Two ranks make an MP4 of a red circle that moves left, and a contact sheet of it."""
    process = start(folder)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    (video,) = (folder / "out").glob("*.mp4")
    (sheet,) = (folder / "out").glob("*.png")
    reading = check.read(read_mp4(video))
    assert (reading.colour, reading.direction) == ("red", "left"), output
    with Image.open(sheet) as image:
        assert image.size[0] > 200
    assert "what to try next" in output
    assert not remaining(folder)


def test_ctrl_c_during_the_start_stops_every_process(folder: Path) -> None:
    """After a SIGINT to the first processes, the exit code is 130, and no process remains."""
    process = start(folder)
    wait_until(lambda: remaining(folder), 180, "the first process of the demo")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130, output
    assert not remaining(folder)


def test_a_failed_start_exits_with_code_1_and_the_reason(folder: Path) -> None:
    """The output names the missing file of the model, and no process remains."""
    empty_folder = folder / "no-model"
    empty_folder.mkdir()
    process = start(folder, DAYBREAK_POOLS__VIDEO__MODEL=str(empty_folder))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    assert "model_index.json" in output
    assert "Traceback" not in output
    assert not remaining(folder)
