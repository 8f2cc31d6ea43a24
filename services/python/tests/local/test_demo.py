"""`daybreakd demo`: it makes a video, and leaves no process behind however it ends."""

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
from verification.tiny_model import check

# pytest may run where SIGINT is ignored (a background shell), and children inherit that.
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


def left(folder: Path) -> list[int]:
    return reaper.tagged(instance_tag(folder / ".daybreak" / "demo"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    wait_until(lambda: not left(tmp_path), 60, "the end of everything the demo started")


def test_a_prompt_becomes_the_video_that_it_describes(folder: Path) -> None:
    """Two ranks make an MP4 of a red circle that moves left, and its contact sheet."""
    process = start(folder)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    (video,) = (folder / "out").glob("*.mp4")
    (sheet,) = (folder / "out").glob("*.png")
    seen = check.read(read_mp4(video))
    assert (seen.colour, seen.direction) == ("red", "left"), output
    with Image.open(sheet) as drawn:
        assert drawn.size[0] > 200
    assert "what to try next" in output
    assert not left(folder)


def test_ctrl_c_during_the_start_stops_everything(folder: Path) -> None:
    """SIGINT as soon as processes run: exit code 130, and no process is left."""
    process = start(folder)
    wait_until(lambda: left(folder), 180, "the first process of the demo")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130, output
    assert not left(folder)


def test_a_failed_start_is_code_1_with_the_reason(folder: Path) -> None:
    """The model folder has no model. No process is left."""
    wrong = folder / "no-model"
    wrong.mkdir()
    process = start(folder, DAYBREAK_POOLS__VIDEO__MODEL=str(wrong))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    assert "model_index.json" in output
    assert "Traceback" not in output
    assert not left(folder)
