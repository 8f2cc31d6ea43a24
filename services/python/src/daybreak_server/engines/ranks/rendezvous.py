"""The rendezvous: how the ranks of a new group find each other.

1. The leader opens a port (:class:`Listener`) and publishes ``host|port|nonce`` in a :class:`RendezvousStore`, a place
   that only the ranks of this one group read: Ray's key-value store under the gang's id, or a folder in tests.
2. Each follower polls the store for the address, connects, and says hello with the nonce and its :class:`RankInfo`
   (:func:`join`). The leader closes the connection if the follower sends no valid hello within ten seconds, if the
   nonce is wrong, or if this rank has already joined.
3. When all followers have joined, the leader sends each of them a welcome with the address of the ``torch.distributed``
   store, and clears the rendezvous store.

Both sides give up at a deadline, or when their rank should stop. Serve makes a new gang id for each start of a gang, so
no rank finds the address of an earlier leader.
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

from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.ranks.channel import Channel, ChannelClosedError
from daybreak_server.engines.ranks.control_group import RankInfo

_POLL_S = 0.05
_HELLO_S = 10.0


class RendezvousStore(Protocol):
    """Holds the leader's address. Each start of a group has its own store, which only the ranks of that start read."""

    def put(self, address: str) -> None:
        """Publish the leader's address."""

    def get(self) -> str | None:
        """Return the address, or ``None`` until it is published."""

    def clear(self) -> None:
        """Remove the address."""


class Listener:
    """The leader's listening socket. ``host`` is an address of this node that the other ranks can reach."""

    def __init__(self, host: str, *, size: int) -> None:
        self._size = size
        self._nonce = secrets.token_urlsafe(18)
        self._listener = socket.create_server((host, 0), family=_family(host), backlog=size)
        self.address = f"{host}|{self._listener.getsockname()[1]}|{self._nonce}"

    def admit(
        self, *, until: float, welcome: dict[str, Any], stopping: Callable[[], bool]
    ) -> dict[int, tuple[Channel, RankInfo]]:
        """Wait for all followers, and send ``welcome`` to each of them. ``until`` is a monotonic time.

        :raises GroupBrokenError: if a follower does not join in time, or this rank should stop.
        """
        joined: dict[int, tuple[Channel, RankInfo]] = {}
        self._listener.settimeout(0.2)
        while len(joined) < self._size - 1:
            if stopping() or time.monotonic() > until:
                missing = sorted(set(range(1, self._size)) - set(joined))
                raise GroupBrokenError(f"ranks {missing} did not join")
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            channel = Channel(sock)
            info = self._hello(channel)
            if info is None or info.rank in joined:
                channel.close()
                continue
            joined[info.rank] = (channel, info)
        for channel, _info in joined.values():
            channel.send("welcome", **welcome)
        return joined

    def _hello(self, channel: Channel) -> RankInfo | None:
        try:
            message = channel.receive(timeout_s=_HELLO_S)
            if not hmac.compare_digest(str(message.fields.pop("nonce", "")), self._nonce):
                return None
            return RankInfo(**message.fields)
        except (ChannelClosedError, TypeError):
            return None

    def close(self) -> None:
        """Close the port; no other rank can join."""
        self._listener.close()


def join(
    store: RendezvousStore, *, me: RankInfo, until: float, stopping: Callable[[], bool]
) -> tuple[Channel, dict[str, Any]]:
    """Connect to the leader, and return the connection and the leader's welcome.

    :raises GroupBrokenError: if no leader answers in time, or this rank should stop.
    """
    reason = "the leader has published no address"
    while not stopping() and time.monotonic() < until:
        address = store.get()
        if address is None:
            time.sleep(_POLL_S)
            continue
        host, port, nonce = address.split("|")
        try:
            channel = Channel(socket.create_connection((host, int(port)), timeout=_HELLO_S))
            channel.send("hello", nonce=nonce, **asdict(me))
            welcome = channel.receive(timeout_s=max(1.0, until - time.monotonic()))
        except (OSError, ChannelClosedError) as exc:
            reason = f"the leader at {host}:{port} does not answer: {exc}"
            time.sleep(_POLL_S * 4)
            continue
        return channel, welcome.fields
    raise GroupBrokenError(f"rank {me.rank} found no leader: {reason}")


def this_rank(rank: int, host: str) -> RankInfo:
    """Describe this process as a rank."""
    return RankInfo(rank=rank, host=host, pid=os.getpid())


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
