"""Framed messages over TCP between two ranks: a JSON header, and an optional payload of bytes.

A frame holds the sizes of header and payload, then the header, then the payload. Nothing is unpickled. The leader
publishes a nonce together with its address, and admits only ranks that send this nonce
(:mod:`~daybreak_server.engines.ranks.rendezvous`). TCP keepalive detects a node that vanished without closing its
connections.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

_HEAD = struct.Struct("!IQ")
_MAX_HEADER = 1 << 22
_MAX_PAYLOAD = 1 << 36


class ChannelClosedError(ConnectionError):
    """The other side is gone or silent, or it sent something that is not a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message; its ``kind`` says what its fields mean."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


class Channel:
    """One end of a connection. Several threads may call ``send``, but only one may call ``receive``."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        sock.settimeout(None)
        _keep_alive(sock)

    def send(self, kind: str, payload: bytes = b"", /, **fields: Any) -> None:
        """Send a message. :raises ChannelClosedError: if the other side is gone."""
        header = json.dumps([kind, fields]).encode()
        try:
            with self._sending:
                self._sock.sendall(_HEAD.pack(len(header), len(payload)) + header)
                if payload:
                    self._sock.sendall(payload)
        except OSError as exc:
            raise ChannelClosedError(f"cannot send {kind!r}: {exc}") from exc

    def receive(self, *, timeout_s: float | None = None) -> Message:
        """Return the next message. :raises ChannelClosedError: if the other side is gone, or silent for
        ``timeout_s``."""
        try:
            self._sock.settimeout(timeout_s)
            header_size, payload_size = _HEAD.unpack(self._exactly(_HEAD.size))
            if header_size > _MAX_HEADER or payload_size > _MAX_PAYLOAD:
                raise ChannelClosedError(
                    f"a message of {header_size} + {payload_size} bytes is larger than the limits"
                )
            kind, fields = json.loads(self._exactly(header_size))
            return Message(kind=kind, fields=fields, payload=bytes(self._exactly(payload_size)))
        except (OSError, ValueError, TypeError) as exc:
            if isinstance(exc, ChannelClosedError):
                raise
            raise ChannelClosedError(f"the connection failed: {exc or type(exc).__name__}") from exc

    def close(self) -> None:
        """Close the connection, which ends ``receive`` on both sides."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            read = self._sock.recv_into(view[got:])
            if not read:
                raise ChannelClosedError("the other side closed the connection")
            got += read
        return data


def _keep_alive(sock: socket.socket) -> None:
    """Make the kernel notice within half a minute that the other node has vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 25_000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
