"""What a process logs to its standard error and, if Ray has started it, to the standard error of its container."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.domain.ids import new_task_id
from daybreak_server.observability.log_lines import json_line, submit_lines, timestamp
from daybreak_server.observability.task_log import TASKS
from testkit.waiting import wait_until

SETUP = """
import logging, sys, threading
from daybreak_server.domain import log_context
from daybreak_server.observability.logging import log_from_ray_worker, log_to_stderr
from daybreak_server.settings.tree import LogSettings
log = logging.getLogger("daybreak_server.somewhere")
"""
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def run(program: str, *, stderr: int = subprocess.PIPE, **variables: str) -> str:
    """Run a program after ``SETUP``. :returns: its standard error."""
    unset = ("KUBERNETES_SERVICE_HOST", "NO_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variables
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program], env=environment, stderr=stderr, check=True, timeout=60
    )
    return done.stderr.decode() if done.stderr is not None else ""


def on_terminal(program: str, **variables: str) -> str:
    """Run a program whose standard error is a terminal."""
    ours, theirs = pty.openpty()
    try:
        run(program, stderr=theirs, **variables)
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def lines(text: str) -> list[dict[str, Any]]:
    """The JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


HELLO = 'log_to_stderr(LogSettings()); log.info("hello %s", "you")'


def test_a_pod_logs_json() -> None:
    (line,) = lines(run(HELLO, **POD))
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "logger": "daybreak_server.somewhere", "message": "hello you"}


@pytest.mark.parametrize(
    ("show", "variables"),
    [(run, {}), (on_terminal, {"NO_COLOR": "1"}), (on_terminal, {**POD, "NO_COLOR": "1"})],
    ids=["a file", "a terminal without colours", "a terminal in a pod"],
)
def test_a_person_gets_plain_text(show: Callable[..., str], variables: dict[str, str]) -> None:
    """Outside a pod, and on a terminal even in a pod, the log is text. NO_COLOR removes the colours of a terminal."""
    text = show(HELLO, **variables)
    assert "hello you" in text
    assert not text.startswith("{")
    assert "\x1b" not in text


def test_a_terminal_gets_colours() -> None:
    assert "\x1b[" in on_terminal(HELLO)


def test_the_settings_choose_format_and_level() -> None:
    text = run(
        'log_to_stderr(LogSettings(format="json", level="warning")); log.info("no"); log.warning("yes")'
    )
    assert [line["message"] for line in lines(text)] == ["yes"]
    text = run('log_to_stderr(LogSettings(format="text")); log.info("yes")', **POD)
    assert not text.startswith("{")


def test_a_traceback_is_part_of_its_line() -> None:
    (line,) = lines(run('log_to_stderr()\ntry: 1 / 0\nexcept ZeroDivisionError: log.exception("odd")', **POD))
    assert line["message"] == "odd"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_any_text_is_logged() -> None:
    """Half a surrogate pair, a NUL or a line break in a message causes neither an error nor a second line."""
    (line,) = lines(run(r'log_to_stderr(); log.info("a%sb", "\udce9\x00\n")', **POD))
    assert line["message"].startswith("a")
    assert line["message"].endswith("b")


def test_libraries_use_the_same_format_and_show_only_their_warnings() -> None:
    """Libraries with handlers of their own, such as Ray, are no exception. At level debug everything is shown."""
    program = """
for name in ("ray", "ray.serve", "uvicorn.error", "botocore.hooks", "kopf.objects"):
    logger = logging.getLogger(name)
    logger.propagate = "." not in name
    logger.setLevel("INFO")
    logger.addHandler(logging.StreamHandler(sys.stderr))
log_to_stderr(LogSettings(level=LEVEL))
for name in ("ray", "ray.serve", "uvicorn.error", "botocore.hooks"):
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
"""
    warnings = lines(run(program.replace("LEVEL", "'info'"), **POD))
    assert [(line["logger"], line["message"]) for line in warnings] == [
        (name, "trouble") for name in ("ray", "ray.serve", "uvicorn.error", "botocore.hooks")
    ]
    assert len(lines(run(program.replace("LEVEL", "'debug'"), **POD))) == 8


def test_bound_fields_are_in_each_line_also_of_threads_that_inherit_them() -> None:
    program = """
log_to_stderr()
log_context.bind(pool="video", rank=0, group="")
with log_context.bound(task="video_1", attempt=2):
    log.info("in the task")
    threads = [threading.Thread(target=target, args=("a thread",))
               for target in (log_context.inherited(log.info), log.info)]
    for thread in threads:
        thread.start()
        thread.join()
    log.info("about another task", extra={"task": "video_2"})
log.info("after the task")
"""
    found = [{k: v for k, v in line.items() if k in ("pool", "rank", "group", "task", "attempt")}
             for line in lines(run(program, **POD))]  # fmt: skip
    of_the_rank = {"pool": "video", "rank": 0}
    of_the_task = {**of_the_rank, "task": "video_1", "attempt": 2}
    assert found == [of_the_task, of_the_task, {}, {**of_the_rank, "task": "video_2"}, of_the_rank]


@pytest.mark.parametrize("trace", ["", "4bf92f3577b34da6a3ce929d0e0e4736"])
@pytest.mark.parametrize("text", ["plain", 'a"b\\c', "ü\n", "\ud800"])
def test_the_line_of_a_submit_is_what_it_would_be_without_haste(text: str, trace: str) -> None:
    """``submit_lines`` writes what ``json_line`` would write, for any tenant and any request id of the client."""
    task = new_task_id("video-hd")
    fields = {"message": f"task {task} submitted", "change": "submitted", "request_id": text, "task": task}
    line = {
        "timestamp": timestamp(1.5),
        "level": "info",
        "logger": TASKS,
        **fields,
        "pool": "video-hd",
        "tenant": text,
    }
    expected = json_line(line | ({"trace_id": trace} if trace else {}))
    made = submit_lines([(1.5, (task, text, trace, text))])
    assert json.loads(made) == json.loads(expected)
    assert made.endswith(b"}\n")
    assert made.count(b"\n") == 1


def test_lines_of_submits_made_together_are_those_made_one_by_one() -> None:
    """The times, tenants and request ids of other submits do not change the line of a submit."""
    task = new_task_id("video-hd")
    submits = [
        (at, (task, tenant, "", request_id))
        for at in (1.5, 1.5004, 2.0)
        for tenant in ("a", 'b"', "a")
        for request_id in ("8accf9f690896a1d", 'x"', "ü")
    ]
    assert submit_lines(submits) == b"".join(submit_lines([submit]) for submit in submits)
    plain = [submit for submit in submits if submit[1][-1].isascii() and submit[1][-1].isalnum()]
    assert submit_lines(plain) == b"".join(submit_lines([submit]) for submit in plain)


# ── a process that Ray has started ────────────────────────────────────────────────────────────────────────


class Container:
    """Stands in for the first process of a container. Its standard error is a pipe that the test reads."""

    def __init__(self) -> None:
        self.first = subprocess.Popen(["sleep", "300"], stderr=subprocess.PIPE)
        assert self.first.stderr is not None
        self._pipe = self.first.stderr.fileno()
        os.set_blocking(self._pipe, False)

    @property
    def stderr(self) -> str:
        return f"/proc/{self.first.pid}/fd/2"

    def read(self) -> str:
        """What was written since the last call."""
        text = b""
        while True:
            try:
                part = os.read(self._pipe, 65536)
            except BlockingIOError:
                return text.decode()
            if not part:
                return text.decode()
            text += part

    def end(self) -> None:
        self.first.kill()
        self.first.wait()
        assert self.first.stderr is not None
        self.first.stderr.close()


@pytest.fixture
def container() -> Any:
    container = Container()
    yield container
    container.end()


def worker(container: Container, program: str, settings: str = "LogSettings()") -> str:
    return (
        f"from pathlib import Path\nlog_from_ray_worker({settings}, container=Path({container.stderr!r}))\n"
        + program
    )


def test_a_rank_s_lines_reach_the_standard_error_of_its_container(container: Container) -> None:
    """Each line is once in Ray's file and once in the container's log."""
    program = worker(container, 'log.info("step", extra={"task": "video_1"})')
    (of_the_file,) = lines(run(program, **POD))
    (of_the_container,) = lines(container.read())
    assert of_the_file == of_the_container
    assert of_the_container["task"] == "video_1"


@pytest.mark.parametrize(
    ("settings", "variables", "expected"),
    [("", {}, 0), ("container='always'", {}, 1), ("container='never'", POD, 0)],
)
def test_the_setting_chooses_whether_a_rank_writes_to_its_container(
    container: Container, settings: str, variables: dict[str, str], expected: int
) -> None:
    run(worker(container, 'log.info("step")', f"LogSettings({settings})"), **variables)
    assert len(lines(container.read())) == expected


def test_long_lines_are_shortened_so_that_those_of_several_ranks_do_not_mix(container: Container) -> None:
    """Ranks in one pod write at the same time. Each line is valid JSON and keeps the end of its traceback."""
    program = worker(
        container,
        """
def deep(n):
    if n: return deep(n - 1) if n % 2 else list(map(deep, [n - 1]))
    raise RuntimeError("the end" + "ü" * 9000)
for _ in range(5):
    try: deep(60)
    except RuntimeError: log.exception("x" * 9000)
""",
    )
    environment = {**os.environ, **POD}
    ranks = [
        subprocess.Popen([sys.executable, "-c", SETUP + program], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    text = ""
    while any(rank.poll() is None for rank in ranks):
        text += container.read()
    text += container.read()
    assert [rank.returncode for rank in ranks] == [0, 0, 0]
    found = lines(text)
    assert len(found) == 15
    assert all(len(line) < 4096 for line in text.encode().splitlines())
    assert all(line["exception"].endswith("ü") and "[shortened]" in line["exception"] for line in found)


def test_a_container_that_is_not_read_does_not_stop_a_rank(container: Container) -> None:
    """Lines that do not fit into the pipe are dropped. A note before the next line says how many were dropped."""
    program = """
for number in range(3000): log.info("line %d", number, extra={"error": "x" * 100})
sys.stdout.write("full\\n"); sys.stdout.flush()
sys.stdin.readline()
log.info("last")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP + worker(container, program)],
        env={**os.environ, **POD},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "full\n"
    before = lines(container.read())
    process.stdin.write("\n")
    process.stdin.close()
    process.stdout.close()
    assert process.wait(60) == 0
    *_, note, last = lines(wait_until(container.read, 60, "the last line"))
    dropped = 3000 - len(before)
    assert 0 < dropped < 3000
    assert (note["message"], last["message"]) == (f"{dropped} lines were dropped", "last")


def test_a_rank_works_without_its_container_s_standard_error(tmp_path: Path) -> None:
    """If the container's standard error cannot be opened, the log says so, and its lines go only to Ray's file."""
    program = f"""
from pathlib import Path
log_from_ray_worker(LogSettings(), container=Path("{tmp_path}/no"))
log.info("step")
"""
    warning, line = lines(run(program, **POD))
    assert "cannot be opened" in warning["message"]
    assert line["message"] == "step"
