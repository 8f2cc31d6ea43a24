"""The proxy does to connections what it says, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from testkit.waiting import wait_until
from verification.faults.environment.proxy import FAIR, GONE, HALF_OPEN, PARTITION, Flow, TcpProxy, Weather


class Echo:
    """Answers each line with itself; remembers what it has heard."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.heard: list[bytes] = []
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
                    self.heard.append(line)
                    file.write(line)
                    file.flush()
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


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


def _ask(sock: socket.socket, line: bytes) -> bytes:
    sock.sendall(line)
    return sock.recv(100)


def _refused(proxy: TcpProxy) -> bool:
    """It ends or is reset: at the first read, or so fast that the connect itself hears of it."""
    try:
        with _connect(proxy) as sock:
            return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_fair_weather_passes_both_ways(proxy: TcpProxy) -> None:
    """Without a fault the proxy is not there, also not at the end of a connection."""
    with _connect(proxy) as sock:
        assert _ask(sock, b"one\n") == b"one\n"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    wait_until(lambda: proxy.open == 0, 5, "the end of the connection")


def test_cut_resets_what_is_open_and_refuses_what_comes(proxy: TcpProxy) -> None:
    """A reset, not an end in order; and none gets in until it is fair again."""
    with _connect(proxy) as sock:
        assert _ask(sock, b"one\n") == b"one\n"
        proxy.weather(GONE)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert _refused(proxy)
    proxy.heal()
    with _connect(proxy) as sock:
        assert _ask(sock, b"three\n") == b"three\n"


def test_half_open_swallows_and_never_ends(proxy: TcpProxy, echo: Echo) -> None:
    """It accepts, takes all, and says nothing, not even that it ended; it stays so after the weather changed."""
    proxy.weather(HALF_OPEN)
    with _connect(proxy, timeout=0.2) as sock:
        sock.sendall(b"lost\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        proxy.heal()
        sock.sendall(b"lost too\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    with _connect(proxy) as sock:
        assert _ask(sock, b"found\n") == b"found\n"
    assert echo.heard == [b"found\n"]


def test_partition_delivers_late(proxy: TcpProxy, echo: Echo) -> None:
    """What was sent during a partition arrives when it is over: late, in order, once."""
    with _connect(proxy, timeout=0.2) as sock:
        assert _ask(sock, b"one\n") == b"one\n"
        proxy.weather(PARTITION)
        sock.sendall(b"two\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert echo.heard == [b"one\n"]
        proxy.heal()
        sock.settimeout(5)
        assert sock.recv(100) == b"two\n"


def test_one_direction_only(proxy: TcpProxy, echo: Echo) -> None:
    """Requests arrive, answers do not."""
    proxy.weather(Weather(down=Flow.SWALLOW))
    with _connect(proxy, timeout=0.2) as sock:
        sock.sendall(b"heard\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)
    wait_until(lambda: echo.heard == [b"heard\n"], 5, "the request")


def test_lost_reply_took_effect(proxy: TcpProxy, echo: Echo) -> None:
    """Exactly the named request is done and not answered; the next one is answered."""
    proxy.lose_replies(1, match=b"this")
    with _connect(proxy) as sock:
        assert _ask(sock, b"that\n") == b"that\n"
        with pytest.raises(ConnectionResetError):
            _ask(sock, b"this\n")
    with _connect(proxy) as sock:
        assert _ask(sock, b"this\n") == b"this\n"
    assert echo.heard == [b"that\n", b"this\n", b"this\n"]
    assert proxy.counts.lost_replies == 1


def test_slow_is_slow(proxy: TcpProxy) -> None:
    """Latency each way, and no more bytes than the bound."""
    proxy.weather(Weather(latency_s=0.1))
    with _connect(proxy) as sock:
        began = time.monotonic()
        assert _ask(sock, b"one\n") == b"one\n"
        assert time.monotonic() - began >= 0.2
        proxy.weather(Weather(bytes_per_s=10_000))
        began = time.monotonic()
        sock.sendall(b"x" * 2_999 + b"\n")
        got = b""
        while len(got) < 3_000:
            got += sock.recv(4_000)
        assert time.monotonic() - began >= 0.25
    proxy.weather(FAIR)
