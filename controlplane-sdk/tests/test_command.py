"""The command `daybreak` as a user sees it: output, files and exit codes. The server is scripted."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VIDEO = b"\0\0\0\x20ftypisom" + bytes(500)
WHOLE = {
    "name": "video.mp4",
    "content_type": "video/mp4",
    "size_bytes": len(VIDEO),
    "sha256": hashlib.sha256(VIDEO).hexdigest(),
    "url": "/v1/tasks/video_01/artifacts/video.mp4",
}
TIMEOUT_S = 60


class Platform:
    """A scripted server with one task, which ends in the state ``end``."""

    def __init__(self, make: Any, end: str = "succeeded") -> None:
        self.make, self.end = make, end
        self.hold: threading.Event | None = None
        self.cancelled = threading.Event()
        self.requests: list[str] = []

    def __call__(self, seen: Any) -> Any:
        self.requests.append(f"{seen.method} {seen.path}")
        make, path = self.make, seen.path
        if seen.method == "POST" and path == "/v1/tasks":
            return make.answer(make.task(queue={"position": 1}), 202)
        if path.endswith("/cancel"):
            self.cancelled.set()
            return make.answer(make.task(state="running", cancel_requested=True), 202)
        if path.endswith("/events"):
            return self.events(seen.headers.get("last-event-id"))
        if path.endswith("/preview"):
            return make.answer(b"RIFFpicture", headers={"Content-Type": "image/webp"})
        if path.endswith("/video.mp4"):
            return make.answer(VIDEO)
        if path.startswith("/v1/tasks/video_01"):
            return make.answer(self.task())
        return make.problem(404, "not_found")

    def task(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"state": self.end, "usage": {"gpu_seconds": 1.5}}
        if self.end == "succeeded":
            extra["artifacts"] = [WHOLE]
        if self.end == "failed":
            extra["error"] = {"code": "model_failed", "message": "out of memory"}
        return self.make.task(**extra)

    def events(self, last: str | None) -> Any:
        event = self.make.event
        log = [
            event("queued", "1-0", position=1),
            event("started", "2-0", group="g-1", ranks=2),
            event("progress", "3-0", phase="denoise", fraction=0.4, step=2, steps=5, eta_s=1.0),
            event("preview", "3-1", step=2, url="/v1/tasks/video_01/preview"),
            event("progress", "4-0", phase="encode", fraction=0.9),
            event(self.end, "5-0"),
        ]
        if self.hold is not None and not self.cancelled.is_set():
            return self.make.stream(*log[:3]).__class__(
                **vars(self.make.stream(*log[:3])) | {"hold": self.hold}
            )
        if self.cancelled.is_set():
            log[-1] = event(self.end, "5-0", reason="asked")
        return self.make.stream(*log)


@pytest.fixture
def platform(scripted: Any, make: Any) -> Callable[..., Platform]:
    def build(end: str = "succeeded") -> Platform:
        found = Platform(make, end)
        scripted.answers = [found]
        return found

    return build


# If a shell runs the tests in the background, their child processes ignore Ctrl-C. So PROGRAM sets Python's handler.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from daybreak.cli.main import run
run()
"""


def environment(url: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DAYBREAK")}
    return kept | {"DAYBREAK_URL": url, "COLUMNS": "120", "TERM": "xterm-256color"}


def start(url: str, *args: str, cwd: Path, **kw: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args],
        env=environment(url),
        cwd=cwd,
        text=True,
        stdin=subprocess.DEVNULL,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kw),
    )


def test_generate_prints_plain_lines_in_a_pipe(platform: Any, scripted: Any, tmp_path: Path) -> None:
    """Without a terminal, stdout contains the file's path, and stderr contains plain lines."""
    platform()
    more = ("--steps", "5", "--seed", "7", "--negative", "blur", "--previews", "pictures")
    process = start(scripted.url, "generate", "a red circle", *more, cwd=tmp_path)
    out, err = process.communicate(timeout=TIMEOUT_S)
    code = process.returncode
    assert (code, out) == (0, "out/video_01.mp4\n")
    assert (tmp_path / "out/video_01.mp4").read_bytes() == VIDEO
    assert (tmp_path / "pictures/step-0002.webp").read_bytes() == b"RIFFpicture"
    assert "\x1b" not in err
    for words in (
        "queued, next in line",
        "started on g-1, 2 ranks",
        "40% denoising · step 2/5",
        "succeeded, 1.5 GPU",
    ):
        assert words in err
    assert scripted.seen[0].json == {
        "pool": "video",
        "priority": "normal",
        "input": {"prompt": "a red circle", "negative_prompt": "blur", "steps": 5, "seed": 7},
    }


def test_generate_with_json_prints_one_object(platform: Any, command: Any, tmp_path: Path) -> None:
    """With `--json`, stdout is one object: the task, its phases and its file."""
    platform()
    code, out, _ = command("generate", "x", "--json", "-o", "mine.mp4")
    answer = json.loads(out)
    assert (code, answer["task"]["state"], answer["file"]) == (0, "succeeded", "mine.mp4")
    assert "denoise" in answer["phases_s"]
    assert (tmp_path / "mine.mp4").read_bytes() == VIDEO


def test_generate_can_detach_and_send_an_image(
    platform: Any, command: Any, scripted: Any, tmp_path: Path
) -> None:
    """`--detach` prints the id and exits. `--image` is sent in base64."""
    seen = platform()
    (tmp_path / "first.png").write_bytes(b"\x89PNG")
    code, out, err = command("generate", "x", "--image", "first.png", "--detach", "--start-within", "60")
    assert (code, out) == (0, "video_01\n")
    assert "daybreak tasks watch video_01" in err
    assert scripted.seen[0].json["input"]["image"] == "iVBORw=="
    assert scripted.seen[0].json["start_within_s"] == 60
    assert seen.requests == ["POST /v1/tasks"]


@pytest.mark.parametrize(("end", "code"), [("failed", 1), ("cancelled", 8), ("expired", 9)])
def test_each_end_has_its_exit_code(platform: Any, command: Any, end: str, code: int) -> None:
    """A script can distinguish failure, cancellation and expiry."""
    platform(end)
    found, out, err = command("generate", "x")
    assert (found, out) == (code, "")
    assert f"video_01 {end}" in err
    assert "daybreak tasks replay video_01" in err


def test_an_expired_task_shows_its_deadline(command: Any, scripted: Any, make: Any) -> None:
    """The output says which deadline ended the task. It does not show the error of an earlier attempt."""
    task = make.task(state="expired", error={"code": "echo_failed", "message": "step 9 failed, as asked"})

    def server(seen: Any) -> Any:
        if seen.path.endswith("/events"):
            return make.stream(make.event("expired", "5-0", reason="run_within"))
        return make.answer(task)

    scripted.answers = [server]
    code, _, err = command("tasks", "watch", "video_01")
    assert code == 9
    assert "video_01 expired: its run_within_s deadline passed" in err
    assert "echo_failed" not in err


@pytest.mark.parametrize(
    ("state", "code"), [("failed", 1), ("cancelled", 8), ("expired", 9), ("succeeded", 3), ("running", 7)]
)
def test_a_download_without_files_fails(
    command: Any, scripted: Any, make: Any, state: str, code: int
) -> None:
    """If the task has no files, the exit code shows its state and is not 0, so that a script stops."""
    scripted.answers = [make.answer(make.task(state=state))]
    found, out, err = command("tasks", "download", "video_01")
    assert (found, out) == (code, "")
    assert f"video_01 is {state} and has no files" in err
    assert "error" in json.loads(command("tasks", "download", "video_01", "--json")[2])


def test_submit_options_reach_the_server(platform: Any, command: Any, scripted: Any) -> None:
    """The metadata, start time, allowed strikes and idempotency key are sent. An invalid value gives exit code 2."""
    platform()
    options = ("--metadata", "user=7", "--metadata", "note=a=b", "--start-at", "2026-11-21T13:00:00+01:00")
    more = ("--max-strikes", "1", "--idempotency-key", "k-1", "--detach")
    for words in (("generate", "x"), ("submit", "echo", "message=hi")):
        assert command(*words, *options, *more)[0] == 0
        sent = scripted.seen[-1]
        assert sent.json["metadata"] == {"user": "7", "note": "a=b"}
        assert (sent.json["start_at"], sent.json["max_strikes"]) == ("2026-11-21T12:00:00.000Z", 1)
        assert sent.headers["idempotency-key"] == "k-1"
    for wrong in (("--start-at", "tomorrow"), ("--start-at", "2026-11-21T12:00:00"), ("--metadata", "user")):
        code, _, err = command("submit", "echo", *wrong)
        assert code == 2
        assert wrong[0] in err


def test_errors_have_exit_codes_and_hints(command: Any, scripted: Any, make: Any, tmp_path: Path) -> None:
    """Each kind of error has its exit code and prints one line that says what to do next."""
    fields = [{"field": "input.frames", "message": "frames must be 4n+1; 16 is not. Try 17."}]
    cases = [
        (make.problem(422, "invalid_input", errors=fields), 2, "input.frames: frames must be 4n+1"),
        (make.problem(404, "no_such_pool"), 3, "`daybreak pools` lists the pools"),
        (make.problem(429, "quota_exceeded", headers={"Retry-After": "120"}), 5, "Retry in 120 s"),
        (make.problem(401, "no_key"), 6, "Set DAYBREAK_API_KEY"),
        (make.problem(500, "internal"), 5, "its log has the details under r-1"),
        (make.answer(b"<h1>It works</h1>"), 4, "Is this the address of a Daybreak server?"),
    ]
    for answer, code, words in cases:
        scripted.answers = [answer]
        found, out, err = command("generate", "x")
        assert (found, out) == (code, ""), err
        assert words in err
        assert len(err.splitlines()) == 1
    scripted.answers = [make.problem(409, "conflict")]
    found, out, err = command("tasks", "delete", "video_01", "--json")
    assert (found, out) == (7, "")
    assert json.loads(err)["error"]["code"] == "conflict"
    scripted.answers = [
        make.answer(make.task(artifacts=[WHOLE], state="succeeded")),
        make.answer(b"\0" * len(VIDEO)),
    ]
    assert command("tasks", "download", "video_01")[0] == 10


def test_wrong_usage_is_2_and_an_unreachable_server_is_4(command: Any, tmp_path: Path) -> None:
    """If no server can be reached, the error says how to start a server. `--help` needs no server."""
    assert command("generate")[0] == 2
    assert command("submit", "echo", "nonsense")[0] == 2
    code, _, err = command("pools", url="http://127.0.0.1:1")
    assert code == 4
    assert "Is it running? `make up` or `daybreakd dev` starts one here" in err
    code, out, _ = command("--help")
    assert code == 0
    assert "130  interrupted" in out
    assert 'daybreak generate "a red circle moving left"' in out
    code, out, _ = command("submit", "--help")
    assert code == 0
    assert "out/ID with the file's extension" in out
    assert "mp4" not in out
    code, out, _ = command("--version")
    assert (code, out.split()[0]) == (0, "daybreak")


def interrupt_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not ready():
        assert time.monotonic() < end, "the command did not become ready for Ctrl-C"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    output = ""
    assert process.stderr is not None
    while words not in output:
        line = process.stderr.readline()
        assert line, f"ended before {words!r}: {output}"
        output += line
    return output


def test_ctrl_c_cancels_the_task(platform: Any, scripted: Any, tmp_path: Path) -> None:
    """Ctrl-C cancels the task, waits for its end, and exits with 130."""
    server = platform("cancelled")
    server.hold = threading.Event()
    process = start(scripted.url, "generate", "x", cwd=tmp_path)
    output = read_until(process, "denoising")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    server.hold.set()
    assert process.returncode == 130
    assert out == ""
    assert "cancelling video_01" in output + err
    assert "video_01 cancelled" in err
    assert "POST /v1/tasks/video_01/cancel" in server.requests


def test_a_second_ctrl_c_exits_at_once(platform: Any, scripted: Any, tmp_path: Path) -> None:
    """After a second Ctrl-C the command does not wait for the task's end."""
    server = platform("cancelled")
    server.hold = threading.Event()
    server.cancelled.is_set = lambda: False  # type: ignore[method-assign]
    process = start(scripted.url, "generate", "x", cwd=tmp_path)
    read_until(process, "denoising")
    process.send_signal(signal.SIGINT)
    interrupt_when(process, lambda: server.requests.count("GET /v1/tasks/video_01/events") == 2)
    _, err = process.communicate(timeout=TIMEOUT_S)
    server.hold.set()
    assert process.returncode == 130
    assert "video_01 is still being cancelled" in err


def test_a_terminal_shows_one_bar(platform: Any, scripted: Any, tmp_path: Path) -> None:
    """On a terminal, stderr shows one progress bar."""
    platform()
    ours, theirs = pty.openpty()
    process = start(scripted.url, "generate", "x", cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    while select.select([ours], [], [], TIMEOUT_S)[0]:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    out, _ = process.communicate(timeout=TIMEOUT_S)
    os.close(ours)
    text = seen.decode()
    assert (process.returncode, out) == (0, "out/video_01.mp4\n")
    assert "100%" in text
    assert "succeeded" in text
    assert "━" in text


def test_the_tasks_commands_print_text_and_json(
    command: Any, scripted: Any, make: Any, platform: Any, tmp_path: Path
) -> None:
    """List, show, watch, cancel, replay, download and delete print text; with `--json`, they print JSON."""
    running = make.task(state="running", phase="denoise", progress={"fraction": 0.5})
    scripted.answers = [make.answer({"data": [running, make.task("video_02", queue={"position": 3})]})]
    code, out, _ = command("tasks", "list", "--state", "running")
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, [row[:3] for row in rows]) == (
        0,
        [["video_01", "running", "denoising 50%"], ["video_02", "queued", "number 3 in line"]],
    )
    code, out, _ = command("tasks", "list", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["video_01", "video_02"]
    platform()
    code, out, _ = command("tasks", "show", "video_01")
    assert "file       video.mp4  512 B" in out
    code, out, _ = command("tasks", "watch", "video_01", "--json")
    assert (code, [json.loads(line)["type"] for line in out.splitlines()][-1]) == (0, "succeeded")
    code, out, _ = command("tasks", "download", "video_01", "-o", "files")
    assert (code, out) == (0, "files/video.mp4\n")
    assert (tmp_path / "files/video.mp4").read_bytes() == VIDEO
    code, out, _ = command("tasks", "cancel", "video_01")
    assert (code, out) == (0, "video_01 is being cancelled\n")
    scripted.answers = [make.answer(make.task("video_09"), 202)]
    assert command("tasks", "replay", "video_01")[1] == "video_09\n"
    scripted.answers = [make.answer(b"", 204)]
    assert command("tasks", "delete", "video_01")[1] == "video_01 deleted\n"


def test_pools_show_groups_and_input(command: Any, scripted: Any, make: Any) -> None:
    """`daybreak pools NAME` shows what the pool's groups do, the last wake, and the fields of the input."""
    schema = {"properties": {"steps": {"description": "Steps of the work.", "default": 5}}}
    groups = [
        {"id": "g-1", "state": "busy", "ranks": 2, "tasks": ["video_01", "video_02"]},
        {"id": "g-2", "state": "loading", "ranks": 1, "phase": "model", "detail": "fetched 1.50 of 4.00 GB"},
        {"id": "g-3", "state": "starting", "ranks": 1, "phase": "process_group"},
        {"id": "g-4", "state": "idle", "ranks": 1},
    ]
    pool = {"name": "video", "workload": "video", "queued": 2, "groups": groups, "input_schema": schema}
    pool["wake"] = {"phase": "ready", "last": {"model_s": 1.2}}
    scripted.answers = [make.answer({"data": [pool]})]
    assert (
        command("pools")[1] == "video\tvideo\tjobs\t2\t0\t-\t1 busy, 1 idle, 1 loading, 1 starting\tready\n"
    )
    scripted.answers = [make.answer(pool)]
    out = command("pools", "video")[1]
    assert "g-1  busy  2 ranks  video_01, video_02\n" in out
    assert "g-2  loading  1 rank  loading the model: fetched 1.50 of 4.00 GB\n" in out
    assert "g-3  starting  1 rank  connecting the ranks\n" in out
    assert "g-4  idle  1 rank\n" in out
    assert "loading the model 1.2 s" in out
    assert "Steps of the work. (default 5)" in out
