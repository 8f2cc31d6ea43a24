"""The output on a terminal and in a pipe: escaped control characters, a fixed format, no traceback."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daybreak.cli.escaping import json_line, visible

EVIL = "a\x1b[2Jb\x9b31mc\x07d\re\nf\u202eg\u2066h\x7f"
SHOWN = r"a\x1b[2Jb\x9b31mc\x07d\re\nf\u202eg\u2066h\x7f"
CONTROLS = {chr(code) for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0), 0x202E, 0x2066)}


@pytest.fixture
def evil(scripted: Any, make: Any) -> dict[str, Any]:
    """A server whose responses have control characters in every text."""
    task: dict[str, Any] = make.task(
        state="failed",
        input={"prompt": EVIL, EVIL: 1},
        metadata={EVIL: EVIL},
        error={"code": "model_failed", "message": EVIL},
        artifacts=[{"name": EVIL, "content_type": "x/y", "size_bytes": 1, "sha256": "0" * 64, "url": "/x"}],
    )
    group = {"id": EVIL, "state": "loading", "ranks": 1, "phase": EVIL, "detail": EVIL}
    pool = {
        "name": EVIL,
        "workload": EVIL,
        "groups": [group],
        "input_schema": {"properties": {EVIL: {"description": EVIL, "default": EVIL}}},
        "wake": {"phase": EVIL},
    }

    def answer(seen: Any) -> Any:
        if seen.path.endswith("/events"):
            log = make.event("log", "1-0", level="info", message=EVIL)
            step = make.event("progress", "2-0", phase=EVIL, fraction=0.5)
            return make.stream(
                make.event("started", "0-1", group=EVIL), log, step, make.event("failed", "3-0")
            )
        if seen.path == "/v1/tasks":
            if seen.method == "POST":
                return make.problem(422, "invalid_input", detail=EVIL)
            return make.answer(
                {"data": [task | {"state": "running", "phase": EVIL, "progress": {"fraction": 0.5}}]}
            )
        if seen.path == "/v1/pools":
            return make.answer({"data": [pool]})
        if seen.path.startswith("/v1/pools/"):
            return make.answer(pool)
        if seen.path.endswith("/foreign"):
            return make.answer(EVIL.encode(), 418)
        return make.answer(task)

    scripted.answers = [answer]
    return task


@pytest.mark.parametrize(
    "words",
    [
        ("tasks", "show", "video_01"),
        ("tasks", "list"),
        ("tasks", "watch", "video_01"),
        ("tasks", "show", "foreign"),
        ("pools",),
        ("pools", "echo"),
        ("generate", "x"),
        ("tasks", "download", "video_01", EVIL[:4]),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_control_characters_are_escaped(
    evil: Any, command: Any, on_terminal: Any, words: tuple[str, ...], terminal: bool
) -> None:
    if terminal:
        text = on_terminal(*words, TERM="dumb").replace("\r\n", "\n")
    else:
        _, out, err = command(*words)
        text = out + err
    assert not CONTROLS & set(text), text
    assert "\\x1b[2J" in text


@pytest.mark.parametrize("words", [("tasks", "show", "video_01"), ("tasks", "list"), ("pools",)])
def test_json_keeps_control_characters_escaped(evil: Any, command: Any, words: tuple[str, ...]) -> None:
    _, out, _ = command(*words, "--json")
    assert not CONTROLS & set(out)
    assert EVIL in str_values(json.loads(out))


def str_values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from str_values(inner)


def test_a_row_stays_one_line_with_its_columns(evil: Any, command: Any) -> None:
    _, out, _ = command("tasks", "list")
    (line,) = out.splitlines()
    assert len(line.split("\t")) == 4


def test_other_scripts_are_not_escaped() -> None:
    text = "赤い円 émail עברית 🎈 a\\b"
    assert visible(text) == text
    assert visible(EVIL) == SHOWN
    for encoding in ("utf-8", "cp1252", "ascii"):
        line = json_line({"a": text + EVIL + "\udce9"}, encoding)
        assert json.loads(line.encode(encoding)) == {"a": text + EVIL + "\udce9"}
    assert text in json_line(text + "x", "utf-8").replace("\\\\", "\\")


@pytest.fixture
def on_terminal(scripted: Any, tmp_path: Path) -> Callable[..., str]:
    """A function that runs the command on a terminal and returns its output."""

    def call(*words: str, **env: str) -> str:
        ours, theirs = pty.openpty()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DAYBREAK")}
        process = subprocess.Popen(
            [sys.executable, "-c", "from daybreak.cli.main import run; run()", *words],
            env=kept | {"DAYBREAK_URL": scripted.url, "COLUMNS": "120", "TERM": "xterm-256color"} | env,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        seen = bytearray()
        while select.select([ours], [], [], 60)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        process.wait(60)
        os.close(ours)
        return seen.decode()

    return call


@pytest.fixture
def listed(scripted: Any, make: Any) -> None:
    tasks = [make.task(f"video_{number:026d}", queue={"position": number}) for number in range(1, 500)]
    scripted.answers = [make.answer({"data": tasks})]


@pytest.mark.parametrize(
    "env", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"CLICOLOR_FORCE": "1", "FORCE_COLOR": "3"}]
)
def test_no_variable_changes_the_format_in_a_pipe(process: Any, listed: None, env: dict[str, str]) -> None:
    done = process("tasks", "list", **env)
    rows = done.out.decode().splitlines()
    assert [len(row.split("\t")) for row in rows] == [4] * 499
    assert b"\x1b" not in done.out


def test_force_color_draws_no_bar_into_a_pipe(process: Any, served: bytes) -> None:
    done = process("generate", "x", FORCE_COLOR="1")
    assert done.code == 0
    assert "━" not in done.error
    assert "\x1b[2K" not in done.error


def test_a_dumb_terminal_gets_lines_and_no_escapes(on_terminal: Any, served: bytes) -> None:
    text = on_terminal("generate", "x", TERM="dumb")
    assert "\x1b" not in text
    assert "started on g-1" in text


def test_no_color_disables_colours(on_terminal: Any, listed: None) -> None:
    import re

    text = on_terminal("tasks", "list", "--limit", "499", NO_COLOR="1")
    assert re.findall(r"\x1b\[[0-9;]*3[0-7]m", text) == []


def test_ids_are_not_truncated_on_a_narrow_terminal(on_terminal: Any, listed: None) -> None:
    text = on_terminal("tasks", "list", COLUMNS="34")
    assert "video_00000000000000000000000007" in text


@pytest.mark.parametrize(
    ("words", "shell"),
    [
        (("tasks", "list", "--limit", "499"), "| head -1"),
        (("tasks", "list", "--limit", "499", "--json"), "| head -1"),
        (("tasks", "list", "--limit", "499"), "| true"),
        (("tasks", "list", "--limit", "499"), "2>&1 | true"),
        (("--help",), "| true"),
        (("generate", "x"), "2>&1 >/dev/null | true"),
    ],
)
def test_a_closed_pipe_is_not_a_failed_task(
    process: Any, listed: None, words: tuple[str, ...], shell: str
) -> None:
    """There is no traceback, and the exit code is 141, which shells use for SIGPIPE.

    If all output is written before the reader exits, the command succeeds.
    """
    done = process(*words, shell=shell)
    assert done.code in {0, 141} or words[0] == "generate", done.error
    assert done.code != 1
    assert done.error == ""


def test_a_full_stdout_is_a_one_line_error(process: Any, listed: None) -> None:
    for words in (("tasks", "list"), ("tasks", "list", "--json"), ("--version",), ("--help",)):
        done = process(*words, shell="> /dev/full")
        assert done.code == 10, done.error
        assert "No space left on device" in done.error
        assert len(done.error.splitlines()) == 1


def test_a_closed_stdout_is_not_an_error(process: Any, served: bytes, tmp_path: Path) -> None:
    done = process("generate", "x", shell=">&-")
    assert done.code == 0, done.error
    assert (tmp_path / "out" / "video_01.mp4").read_bytes() == served


WORLD = "赤い円 🎈"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_any_prompt_prints_in_any_encoding(
    process: Any, scripted: Any, make: Any, served: bytes, encoding: str
) -> None:
    """The command prints the prompt in the task's description, and as JSON that parses to the same text."""
    inner = scripted.answers[0]

    def answer(seen: Any) -> Any:
        if seen.method == "GET" and seen.path == "/v1/tasks/video_01":
            found = json.loads(inner(seen).body)
            return make.answer(found | {"input": {"prompt": WORLD}, "metadata": {WORLD: WORLD}})
        return inner(seen)

    scripted.answers = [answer]
    done = process("generate", WORLD, "--json", PYTHONIOENCODING=encoding)
    assert done.code == 0, done.error
    assert json.loads(done.out.decode(encoding))["task"]["input"]["prompt"] == WORLD
    assert scripted.seen[0].json["input"]["prompt"] == WORLD
    done = process("tasks", "show", "video_01", PYTHONIOENCODING=encoding)
    assert done.code == 0, done.error
    assert (WORLD if encoding == "utf-8" else "\\u8d64") in done.out.decode(encoding)
    assert process("--help", PYTHONIOENCODING=encoding).code == 0
