"""Tests of `daybreak trace`: it prints a waterfall on a terminal, rows elsewhere, and JSON with `--json`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

WAKE = {"model_s": 4.0, "since_ready_s": 0.0}


@pytest.fixture
def traced(scripted: Any, make: Any) -> None:
    """A server with a task that was retried."""
    usage = {"gpu_seconds": 3.0, "wasted_gpu_seconds": 2.0}
    events = [
        make.event("started", "1-0", at="2026-11-21T12:00:06.000Z", group="g-a", ranks=1, wake=WAKE),
        make.event("retrying", "2-0", at="2026-11-21T12:00:08.000Z", reason="error", message="oops\x1b[31m"),
        make.event("started", "3-0", at="2026-11-21T12:00:09.000Z", group="g-b", ranks=1),
        make.event(
            "progress", "4-0", at="2026-11-21T12:00:11.000Z", phase="denoise", step=8, steps=8, from_step=1
        ),
        make.event("succeeded", "5-0", at="2026-11-21T12:00:12.000Z", usage=usage),
    ]

    def answer(seen: Any) -> Any:
        if seen.path.endswith("/events"):
            assert seen.query == {"follow": "false"}
            return make.stream(*events)
        if seen.path.endswith("/video_01"):
            return make.answer(make.task(state="succeeded"))
        return make.problem(404, "not_found")

    scripted.answers = [answer]


@pytest.mark.usefixtures("traced")
def test_without_a_terminal_there_is_a_row_for_each_part(command: Any) -> None:
    code, out, err = command("trace", "video_01")
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["0.000", "6.000", "queued"],
        ["0.000", "2.000", "  in the queue"],
        ["2.000", "4.000", "  loading the model"],
        ["6.000", "2.000", "attempt ?"],
        ["6.000", "2.000", "  starting"],
        ["8.000", "1.000", "waiting to retry"],
        ["9.000", "3.000", "attempt ?"],
        ["9.000", "3.000", "  denoising"],
    ]
    assert rows[3][3] == "g-a (1 rank), 2.0 GPU-seconds, an error: oops\\x1b[31m"
    assert rows[-1][3] == "steps 1–8 of 8"


@pytest.mark.usefixtures("traced")
def test_json_has_the_whole_trace_on_one_line(command: Any) -> None:
    code, out, _ = command("trace", "video_01", "--json")
    shown = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    assert [part["kind"] for part in shown["parts"]] == ["wait", "attempt", "wait", "attempt"]
    assert shown["usage"] == {"gpu_seconds": 3.0, "wasted_gpu_seconds": 2.0}


@pytest.mark.usefixtures("traced")
def test_an_unknown_task_is_named_with_what_to_do(command: Any) -> None:
    code, out, err = command("trace", "video_99")
    assert (code, out) == (3, "")
    assert "daybreak tasks list" in err


def test_a_client_learns_that_a_history_was_trimmed(scripted: Any, make: Any, command: Any) -> None:
    stream = make.stream(
        make.event("reset", task={}), make.event("succeeded", "5-0", at="2026-11-21T12:00:12.000Z")
    )
    scripted.answers = [make.answer(make.task(state="succeeded")), stream]
    code, out, err = command("trace", "video_01")
    assert code == 0
    assert out.splitlines()[0].split("\t") == ["0.000", "12.000", "events deleted", ""]
    assert "were deleted" in err


@pytest.mark.usefixtures("traced")
def test_a_terminal_gets_bars_in_colour(scripted: Any) -> None:
    main, other = pty.openpty()
    program = [sys.executable, "-c", "from daybreak.cli.main import run; run()", "trace", "video_01"]
    env = os.environ | {"DAYBREAK_URL": scripted.url, "COLUMNS": "120", "TERM": "xterm-256color"}
    done = subprocess.run(program, stdout=other, stderr=subprocess.PIPE, env=env, timeout=60, check=False)
    os.close(other)
    out = b""
    while chunk := _read(main):
        out += chunk
    os.close(main)
    text = out.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "succeeded · 12.0 s · 2 attempts · 3.0 GPU-seconds used, 2.0 wasted" in text
    assert "█" in text
    assert "\x1b[36m" in text  # the wake has a colour of its own
    assert "\x1b[31moops" not in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
