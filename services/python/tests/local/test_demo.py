"""Tests of ``daybreakd demo``: it makes a video, and leaves no process behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from daybreak_server.workloads.video.pipeline.encode import read_mp4
from testkit.demo_process import DemoProcess
from verification.tiny_wan import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
Start = Callable[..., DemoProcess]


def test_the_demo_makes_the_video_that_its_prompt_describes(tmp_path: Path, start_demo: Start) -> None:
    """Two ranks make an MP4 of a red circle that moves left, and a contact sheet of it."""
    demo = start_demo("demo")
    code, output = demo.end(600)
    assert code == 0, output
    (video,) = (tmp_path / "out").glob("*.mp4")
    (sheet,) = (tmp_path / "out").glob("*.png")
    reading = check.read(read_mp4(video))
    assert (reading.colour, reading.direction) == ("red", "left"), output
    with Image.open(sheet) as image:
        assert image.size[0] > 200
    assert "what to try next" in output
    assert not demo.remaining()


def test_ctrl_c_during_the_start_stops_every_process(tmp_path: Path, start_demo: Start) -> None:
    """If Ctrl-C comes when the first process has started, the exit code is 130, and no process remains."""
    demo = start_demo("demo")
    demo.interrupt()
    code, output = demo.end(180)
    assert code == 130, output
    assert not demo.remaining()


def test_a_failed_start_exits_with_code_1_and_the_reason(tmp_path: Path, start_demo: Start) -> None:
    """The output names the missing file of the model, and no process remains."""
    empty_folder = tmp_path / "no-model"
    empty_folder.mkdir()
    demo = start_demo("demo", DAYBREAK_POOLS__VIDEO__MODEL=str(empty_folder))
    code, output = demo.end(600)
    assert code == 1, output
    assert "model_index.json" in output
    assert "Traceback" not in output
    assert not demo.remaining()
