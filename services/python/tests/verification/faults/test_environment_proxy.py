"""The proxy injects the faults that it promises and no others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from testkit.waiting import wait_until
from verification.faults.environment.proxy import (
    DOWN,
    HALF_OPEN,
    NORMAL,
    PARTITION,
    Conditions,
    Flow,
    TcpProxy,
)


class Echo:
    """Returns each line and remembers it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rwb") as file:
            try:
                for line in file:
                    self.received.append(line)
                    file.write(line)
                    file.flush()
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy(echo.address) as proxy:
        yield proxy


def _connect(proxy: TcpProxy, *, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def _request(sock: socket.socket, line: bytes) -> bytes:
    sock.sendall(line)
    return sock.recv(100)


def _refused(proxy: TcpProxy) -> bool:
    """Whether a new connection is closed or reset, while it connects or at its first read."""
    try:
        with _connect(proxy) as sock:
            return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_without_faults_bytes_pass_both_ways(proxy: TcpProxy) -> None:
    """Without a fault the proxy forwards everything, including the end of a connection."""
    with _connect(proxy) as sock:
        assert _request(sock, b"one\n") == b"one\n"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    wait_until(lambda: proxy.open == 0, 60, "the end of the connection")


def test_a_cut_resets_open_connections_and_down_refuses_new_ones(proxy: TcpProxy) -> None:
    """A cut resets open connections instead of closing them cleanly. `DOWN` resets new ones until `heal`."""
    with _connect(proxy) as sock:
        assert _request(sock, b"one\n") == b"one\n"
        proxy.set_conditions(DOWN)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert _refused(proxy)
    proxy.heal()
    with _connect(proxy) as sock:
        assert _request(sock, b"three\n") == b"three\n"


def test_a_half_open_connection_swallows_bytes_and_never_ends(proxy: TcpProxy, echo: Echo) -> None:
    """The connection accepts bytes and returns nothing, and never ends. It stays dead after the conditions change."""
    proxy.set_conditions(HALF_OPEN)
    with _connect(proxy, timeout=0.2) as sock:
        sock.sendall(b"lost\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        proxy.heal()
        sock.sendall(b"lost too\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    with _connect(proxy) as sock:
        assert _request(sock, b"found\n") == b"found\n"
    assert echo.received == [b"found\n"]


def test_a_partition_delivers_late(proxy: TcpProxy, echo: Echo) -> None:
    """Bytes sent during a partition arrive after it, in order and once."""
    with _connect(proxy, timeout=0.2) as sock:
        assert _request(sock, b"one\n") == b"one\n"
        proxy.set_conditions(PARTITION)
        sock.sendall(b"two\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert echo.received == [b"one\n"]
        proxy.heal()
        sock.settimeout(5)
        assert sock.recv(100) == b"two\n"


def test_a_fault_can_affect_one_direction_only(proxy: TcpProxy, echo: Echo) -> None:
    """Requests arrive, replies do not."""
    proxy.set_conditions(Conditions(down=Flow.SWALLOW))
    with _connect(proxy, timeout=0.2) as sock:
        sock.sendall(b"heard\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    wait_until(lambda: echo.received == [b"heard\n"], 60, "the request")


def test_a_request_whose_reply_is_lost_takes_effect(proxy: TcpProxy, echo: Echo) -> None:
    """Only the first request that matches loses its reply. The next matching request gets its reply."""
    proxy.lose_replies(1, match=b"this")
    with _connect(proxy) as sock:
        assert _request(sock, b"that\n") == b"that\n"
        with pytest.raises(ConnectionResetError):
            _request(sock, b"this\n")
    with _connect(proxy) as sock:
        assert _request(sock, b"this\n") == b"this\n"
    assert echo.received == [b"that\n", b"this\n", b"this\n"]
    assert proxy.counts.lost_replies == 1


def test_latency_and_bandwidth_limits_apply(proxy: TcpProxy) -> None:
    """Latency applies to each direction, and no more bytes pass than the limit allows."""
    proxy.set_conditions(Conditions(latency_s=0.1))
    with _connect(proxy) as sock:
        began = time.monotonic()
        assert _request(sock, b"one\n") == b"one\n"
        assert time.monotonic() - began >= 0.2
        proxy.set_conditions(Conditions(bytes_per_s=10_000))
        began = time.monotonic()
        sock.sendall(b"x" * 2_999 + b"\n")
        received = b""
        while len(received) < 3_000:
            received += sock.recv(4_000)
        assert time.monotonic() - began >= 0.25
    proxy.set_conditions(NORMAL)
