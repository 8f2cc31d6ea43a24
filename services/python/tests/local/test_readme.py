"""Runs the commands of the README against a whole Daybreak with the tiny model on two ranks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.system import System, request, try_request
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
README = Path(__file__).parents[4] / "README.md"
BIN = Path(sys.executable).parent
RED_LEFT = {"prompt": "a red circle moving left", "seed": 7}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def shell(script: str, url: str, cwd: Path) -> str:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=os.environ | {"DAYBREAK_URL": url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_curl_commands_of_the_readme_work(up: System, tmp_path: Path) -> None:
    """The commands submit a task, follow it to its end and download the video."""
    (script,) = [block for block in blocks("bash") if "curl" in block]
    submit, follow, fetch = script.replace("localhost:8000", up.url).replace("\\\n", " ").splitlines()
    task = json.loads(shell(submit, up.url, tmp_path))["id"]
    events = shell(follow.replace("<id>", task), up.url, tmp_path)
    assert "event: succeeded" in events
    assert len(re.findall(r"^event: progress", events, re.MULTILINE)) >= 2
    shell(fetch.replace("<id>", task), up.url, tmp_path)
    assert (tmp_path / "square.mp4").stat().st_size > 1000


def test_the_client_commands_of_the_readme_work(up: System, tmp_path: Path) -> None:
    """``daybreak generate`` saves a video, and ``tasks list`` shows its task."""
    (script,) = [block for block in blocks("bash") if "daybreak generate" in block]
    output = shell(script.replace(".venv/bin/", f"{BIN}/"), up.url, tmp_path)
    assert (tmp_path / "triangle.mp4").stat().st_size > 1000
    assert "succeeded" in output


def test_the_python_example_of_the_readme_works(up: System, tmp_path: Path) -> None:
    (code,) = blocks("python")
    (tmp_path / "example.py").write_text(code)
    output = shell(f"{sys.executable} example.py", up.url, tmp_path)
    assert "succeeded" in output
    assert (tmp_path / "circle.mp4").stat().st_size > 1000


def test_a_task_whose_rank_is_killed_resumes_and_gives_the_same_bytes(up: System) -> None:
    """A kill -9 of a follower during the denoise loop is a strike, and the next group resumes from a checkpoint."""
    long = RED_LEFT | {"steps": 60}
    uninterrupted = up.wait(request(f"{up.url}/v1/tasks", {"pool": "video", "input": long})["id"])
    task = request(f"{up.url}/v1/tasks", {"pool": "video", "input": long})["id"]
    steps_done = lambda: (try_request(f"{up.url}/v1/tasks/{task}") or {}).get("progress", {}).get("step", 0)  # noqa: E731
    wait_until(lambda: steps_done() >= 20, 120, "twenty steps")
    (group,) = [g for g in request(f"{up.url}/v1/pools/video")["groups"] if g["state"] != "lost"]
    os.kill(group["pids"][1], signal.SIGKILL)
    resumed = up.wait(task, timeout=400)
    assert (resumed["attempt"], resumed["strikes"]) == (2, 1)
    assert resumed["resumed_from_step"] > 0
    assert [a["sha256"] for a in resumed["artifacts"]] == [a["sha256"] for a in uninterrupted["artifacts"]]


def test_a_cancel_stops_within_a_step_and_the_group_stays_warm(up: System) -> None:
    """The group does not load the model again for the next task."""
    idle_groups = wait_until(
        lambda: [g for g in request(f"{up.url}/v1/pools/video")["groups"] if g["state"] == "idle"],
        120,
        "a group",
    )
    task = request(f"{up.url}/v1/tasks", {"pool": "video", "input": RED_LEFT | {"steps": 200}})["id"]
    wait_until(
        lambda: request(f"{up.url}/v1/tasks/{task}").get("progress", {}).get("step", 0) > 2, 60, "a step"
    )
    request(f"{up.url}/v1/tasks/{task}/cancel", {})
    assert up.wait(task, "cancelled")["progress"]["step"] < 200
    up.wait(request(f"{up.url}/v1/tasks", {"pool": "video", "input": RED_LEFT})["id"])
    (group,) = [g for g in request(f"{up.url}/v1/pools/video")["groups"] if g["state"] != "lost"]
    assert (group["id"], group["loads"]) == (idle_groups[0]["id"], 1)
