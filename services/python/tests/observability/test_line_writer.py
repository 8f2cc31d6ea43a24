"""If nobody reads a process's standard error, the process continues, and loses no line while its buffer has room."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from daybreak_server.observability.line_writer import LineWriter

PROGRAM = """
import logging, os, sys
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.observability.task_log import log_task
from daybreak_server.domain.task_changes import ChangeKind
from daybreak_server.settings.tree import LogSettings
log_to_stderr(LogSettings(format="text"))
log = logging.getLogger("daybreak_server.somewhere")
def lines(begin, end):
    for number in range(begin, end):
        if number % 100 == 0:
            log.info("line %06d.", number)
        else:
            log_task(ChangeKind.SUBMITTED, f"line_{number:06d}.")
def say(word):
    print(word, flush=True)
    sys.stdin.readline()
"""


def start(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(process: subprocess.Popen[bytes], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().decode() == f"{word}\n"


def numbers(log: bytes) -> list[int]:
    """The numbers of the lines, in order."""
    return [
        int(line.partition(b"line_" if b"line_" in line else b"line ")[2][:6])
        for line in log.splitlines()
        if b"lost" not in line
    ]


def test_a_log_that_nobody_reads_does_not_stop_the_process_and_loses_no_line() -> None:
    process = start("lines(0, 3000); say('written'); lines(3000, 3100)")
    wait_for(process, "written")
    _, log = process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert numbers(log) == list(range(3100))


def test_if_the_buffer_is_full_a_line_says_how_many_lines_were_lost() -> None:
    program = """
import daybreak_server.observability.logging as setup
from daybreak_server.observability.line_writer import LineWriter
setup.LineWriter = lambda fd, **options: LineWriter(fd, buffer_bytes=100_000, **options)
log_to_stderr(LogSettings(format="text"))
lines(0, 5000); say('written'); say('read'); lines(5000, 5010)
"""
    process = start(program)
    assert process.stdin is not None
    assert process.stderr is not None
    wait_for(process, "written")
    log = b""
    while b"lines of the log were lost" not in log:
        log += os.read(process.stderr.fileno(), 65536)
    process.stdin.write(b"\n")
    process.stdin.flush()
    wait_for(process, "read")
    _, rest = process.communicate(b"\n", timeout=60)
    (note,) = [line for line in log.splitlines() if b"lost" in line]
    kept = numbers(log)
    assert kept == list(range(len(kept)))
    assert f"{5000 - len(kept)} lines of the log were lost".encode() in note
    assert numbers(rest) == list(range(5000, 5010))


def test_a_process_whose_log_nobody_reads_ends_soon() -> None:
    process = start("lines(0, 3000)")
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_child_of_a_fork_writes_its_own_lines_only() -> None:
    process = start("""
import warnings
warnings.simplefilter("ignore")
lines(0, 2000)
child = os.fork()
if not child:
    lines(9000, 9001)
    logging.shutdown()
    os._exit(0)
say('forked'); os.waitpid(child, 0)
""")
    wait_for(process, "forked")
    _, log = process.communicate(b"\n", timeout=60)
    found = numbers(log)
    assert found.count(9000) == 1
    assert [number for number in found if number != 9000] == list(range(2000))


LATER = """
import asyncio
from daybreak_server.domain import log_context
from daybreak_server.observability.task_log import log_submit
log_to_stderr(LogSettings(format="json"))
def submits(begin, end):
    with log_context.bound(request_id="r"):
        for number in range(begin, end):
            log_submit(f"line_{number:06d}.", tenant="t")
"""


def test_lines_of_submits_wait_for_each_other_and_keep_the_order() -> None:
    """The lines of submits are written when another kind of line follows, a batch is full, or a moment has passed."""
    process = start(f"""{LATER}
async def main():
    submits(0, 5); lines(5, 6); submits(6, 400); lines(400, 401); submits(401, 403)
    await asyncio.to_thread(say, "idle")
asyncio.run(main())
""")
    wait_for(process, "idle")
    assert process.stderr is not None
    log = os.read(process.stderr.fileno(), 65536 * 4)
    while numbers(log) != list(range(403)):
        log += os.read(process.stderr.fileno(), 65536 * 4)
    _, rest = process.communicate(b"\n", timeout=60)
    assert rest == b""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise RuntimeError"])
def test_a_process_that_ends_writes_the_lines_of_its_last_submits_and_a_child_does_not(end: str) -> None:
    """When a program returns, exits or raises an error, Python calls ``logging.shutdown``, which writes the lines."""
    process = start(f"""{LATER}
import warnings
warnings.simplefilter("ignore")
async def main():
    submits(0, 10)
    child = os.fork()
    if not child:
        logging.shutdown()
        os._exit(0)
    os.waitpid(child, 0)
    {end}
asyncio.run(main())
""")
    _, log = process.communicate(timeout=60)
    assert numbers(b"\n".join(line for line in log.splitlines() if line.startswith(b"{"))) == list(range(10))


def test_without_an_event_loop_the_line_of_a_submit_is_written_at_once() -> None:
    process = start(f"{LATER}submits(0, 3); say('written')")
    wait_for(process, "written")
    assert process.stderr is not None
    assert numbers(os.read(process.stderr.fileno(), 65536)) == [0, 1, 2]
    process.communicate(b"\n", timeout=60)


def made(facts: Sequence[tuple[float, tuple[str, ...]]]) -> bytes:
    """One line for each item of ``facts``. The line has only the first text of the item."""
    return b"".join(texts[0].encode() + b"\n" for _, texts in facts)


def test_lines_that_waited_for_others_are_counted_one_by_one_when_they_are_lost() -> None:
    reader, writer = os.pipe()
    write = LineWriter(writer, lost=lambda lines: b"%d lost" % lines, make=made, buffer_bytes=10_000)
    for _ in range(5000):
        write.later("x" * 99)
    os.set_blocking(reader, False)
    log = b""
    until = time.monotonic() + 60
    while b"lost" not in log:
        assert time.monotonic() < until
        try:
            log += os.read(reader, 65536)
        except BlockingIOError:
            write.flush(0.01)
    written = log.count(b"x" * 99 + b"\n")
    assert b"%d lost" % (5000 - written) in log
    os.close(reader)
    os.close(writer)


@pytest.fixture(params=["pipe", "terminal", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A descriptor to read from, and one to write to."""
    if request.param == "pipe":
        found = os.pipe()
    elif request.param == "terminal":
        found = pty.openpty()
    else:
        found = tuple(end.detach() for end in socket.socketpair())
    yield found
    for end in found:
        os.close(end)


def test_no_kind_of_standard_error_blocks(ends: tuple[int, int]) -> None:
    """No write waits for the reader. The descriptor stays in blocking mode, because other processes may share it."""
    reader, writer = ends
    write = LineWriter(writer, lost=lambda lines: b"%d lost" % lines, make=made)
    for number in range(3000):
        write(b"line_%06d." % number + b"x" * 100)
    assert os.get_blocking(writer)
    log = b""
    until = time.monotonic() + 60
    while log.count(b"\n") < 3000:
        assert time.monotonic() < until
        log += os.read(reader, 65536)
    assert numbers(log) == list(range(3000))


def test_a_standard_error_without_reader_is_no_error() -> None:
    reader, writer = os.pipe()
    write = LineWriter(writer, lost=lambda lines: b"%d lost" % lines, make=made)
    for _ in range(1000):
        write(b"x" * 200)
    os.close(reader)
    write(b"x")
    write.flush(10)
    write(b"x")
    os.close(writer)
