"""Tests of the ports that an instance chooses for its servers."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daybreak_server.local import free_ports
from daybreak_server.local.free_ports import free_port, is_free, sticky_port

_PRINT_PORTS = """
import sys
from daybreak_server.local import free_ports
free_ports._FIRST, free_ports._LAST = {first}, {last}
print(*[free_ports.free_port() for _ in range({count})], flush=True)
sys.stdin.read()
"""


def processes_with_ports(first: int, last: int, *, count: int, processes: int) -> list[list[int]]:
    """Start processes that choose ports from a narrow range. All of them have chosen before the first one ends.

    :returns: the ports of each process.
    """
    code = _PRINT_PORTS.format(first=first, last=last, count=count)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    assert all(process.stdout for process in started)
    lines = [process.stdout.readline() for process in started if process.stdout]
    for process in started:
        process.communicate()
    return [[int(port) for port in line.split()] for line in lines]


def test_threads_that_ask_for_ports_at_once_get_different_ones() -> None:
    """Two systems that start together must not share a port: clients of one would reach the other."""
    with ThreadPoolExecutor(8) as threads:
        ports = list(threads.map(lambda _: free_port(), range(600)))
    assert len(set(ports)) == len(ports)


def test_processes_that_ask_for_ports_at_once_get_different_ones() -> None:
    """Nothing listens on these ports yet, so all of them are free.

    Ports of processes that have ended may be chosen again.
    """
    first = 29_000
    ports, others = processes_with_ports(first, first + 60, count=20, processes=2)
    assert len({*ports, *others}) == 40
    again = processes_with_ports(first, first + 60, count=20, processes=2)
    assert len({*again[0], *again[1]}) == 40


def test_a_forked_process_does_not_get_the_ports_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    first = 28_000
    monkeypatch.setattr(free_ports, "_FIRST", first)
    monkeypatch.setattr(free_ports, "_LAST", first + 40)
    ours = {free_port() for _ in range(10)}
    out, into = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(into, " ".join(str(free_port()) for _ in range(10)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(into)
    with open(out, "rb") as found:
        theirs = {int(port) for port in found.read().split()}
    assert len(theirs) == 10
    assert not ours & theirs


@pytest.mark.skipif(
    not Path("/proc/sys/net/ipv4/ip_local_port_range").exists(), reason="only Linux tells the range"
)
def test_the_kernel_does_not_give_a_clients_connection_one_of_these_ports() -> None:
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = [free_port() for _ in range(20)]
    if int(first) < free_ports._LAST:
        pytest.skip(f"on this machine, the kernel chooses from {first} to {last}")
    assert all(port < int(first) for port in ports)


def test_without_locks_the_ports_of_this_process_still_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have no locks."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    monkeypatch.setattr(free_ports, "_files", {os.getpid(): 0})
    monkeypatch.setattr(free_ports, "_reserved", set())
    assert len({free_port() for _ in range(50)}) == 50


def test_an_address_of_another_machine_is_an_error_that_names_the_reason() -> None:
    with pytest.raises(OSError, match="assign"):
        free_port("192.0.2.1")


def test_no_free_port_is_an_error_that_names_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(free_ports, "_FIRST", port)
        monkeypatch.setattr(free_ports, "_LAST", port + 1)
        with pytest.raises(OSError, match=f"ports from {port} to {port} is free on 127.0.0.1"):
            free_port()


def test_an_instance_keeps_its_port_unless_it_is_in_use(tmp_path: Path) -> None:
    """The port is stored in a file. It is never the default port of Redis."""
    file = tmp_path / "port"
    port = sticky_port(file)
    assert sticky_port(file) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        other = sticky_port(file)
    assert other != port
    file.write_text("6379")
    assert sticky_port(file) != 6379
