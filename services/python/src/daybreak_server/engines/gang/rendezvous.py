"""How the ranks of a new group find each other: the leader opens a port and publishes where; followers come.

Where it is published is the caller's: a :class:`RendezvousStore` (Ray's key-value store, a folder in tests).
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from daybreak_server.engines.gang.channel import Channel, ChannelClosedError
from daybreak_server.engines.gang.control_group import RankInfo
from daybreak_server.engines.rank.errors import GroupBrokenError

_POLL_S = 0.05
_HELLO_S = 10.0


class RendezvousStore(Protocol):
    """A place that every rank of one group can read. It belongs to that group's incarnation alone."""

    def put(self, address: str) -> None:
        """Publish the leader's address."""

    def get(self) -> str | None:
        """The address, or ``None`` while there is none."""

    def clear(self) -> None:
        """Everybody has come."""


class Listener:
    """The leader's listening socket. ``host`` is an address of this node that the other ranks can reach."""

    def __init__(self, host: str, *, size: int) -> None:
        self._size = size
        self._nonce = secrets.token_urlsafe(18)
        self._listener = socket.create_server((host, 0), family=_family(host), backlog=size)
        self.host = host
        self.address = f"{host}|{self._listener.getsockname()[1]}|{self._nonce}"

    def admit(
        self, *, until: float, welcome: dict[str, Any], going: Callable[[], bool]
    ) -> dict[int, tuple[Channel, RankInfo]]:
        """Wait for all followers, and tell each of them ``welcome``. ``until`` is a monotonic time."""
        come: dict[int, tuple[Channel, RankInfo]] = {}
        self._listener.settimeout(0.2)
        while len(come) < self._size - 1:
            if going() or time.monotonic() > until:
                missing = sorted(set(range(1, self._size)) - set(come))
                raise GroupBrokenError(f"ranks {missing} did not come")
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            channel = Channel(sock)
            info = self._hello(channel)
            if info is None or info.rank in come:
                channel.close()
                continue
            come[info.rank] = (channel, info)
        for channel, _info in come.values():
            channel.send("welcome", **welcome)
        return come

    def _hello(self, channel: Channel) -> RankInfo | None:
        try:
            message = channel.receive(timeout_s=_HELLO_S)
            if not hmac.compare_digest(str(message.fields.pop("nonce", "")), self._nonce):
                return None
            return RankInfo(**message.fields)
        except (ChannelClosedError, TypeError):
            return None

    def close(self) -> None:
        """Nobody else comes in."""
        self._listener.close()


def join(
    board: RendezvousStore, *, me: RankInfo, until: float, going: Callable[[], bool]
) -> tuple[Channel, dict[str, Any]]:
    """Go to the leader: the connection, and its welcome.

    :raises GroupBrokenError: when it takes too long.
    """
    why = "the leader has published no address"
    while not going() and time.monotonic() < until:
        address = board.get()
        if address is None:
            time.sleep(_POLL_S)
            continue
        host, port, nonce = address.split("|")
        try:
            channel = Channel(socket.create_connection((host, int(port)), timeout=_HELLO_S))
            channel.send("hello", nonce=nonce, **asdict(me))
            welcome = channel.receive(timeout_s=max(1.0, until - time.monotonic()))
        except (OSError, ChannelClosedError) as exc:
            why = f"the leader at {host}:{port} does not answer: {exc}"
            time.sleep(_POLL_S * 4)
            continue
        return channel, welcome.fields
    raise GroupBrokenError(f"rank {me.rank} found no leader: {why}")


def this_rank(rank: int, host: str) -> RankInfo:
    """This process as a rank."""
    return RankInfo(rank=rank, host=host, pid=os.getpid())


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
