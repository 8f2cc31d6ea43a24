"""A process whose standard error nobody reads works on, and loses no line as long as its buffer has room."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

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
setup.LineWriter = lambda fd, lost: LineWriter(fd, lost=lost, buffer_bytes=100_000)
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


@pytest.fixture(params=["pipe", "terminal", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A descriptor to read, and one to write."""
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
    """And a descriptor that is shared with other processes stays as it was."""
    reader, writer = ends
    write = LineWriter(writer, lost=lambda lines: b"%d lost" % lines)
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
    write = LineWriter(writer, lost=lambda lines: b"%d lost" % lines)
    for _ in range(1000):
        write(b"x" * 200)
    os.close(reader)
    write(b"x")
    write.flush(10)
    write(b"x")
    os.close(writer)
