"""Clients and audio for tests of sessions."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
from api_support import Api
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from testkit.session_memory import MemorySessions

RATE = 16_000
POOLS = {"speech": {"workload": "testkit.session_workload:SPEC"}}


def tone(seconds: float, *, rate: int = RATE, hertz: float = 440.0, loud: float = 0.5) -> list[float]:
    """Samples of a sine with the amplitude ``loud``, where 1.0 is the maximum."""
    return [loud * math.sin(2 * math.pi * hertz * n / rate) for n in range(int(seconds * rate))]


def pcm16(samples: list[float]) -> bytes:
    return array("h", [round(32767 * value) for value in samples]).tobytes()


def float32(samples: list[float]) -> bytes:
    return array("f", samples).tobytes()


@lru_cache
def noise(seconds: float, seed: int = 1) -> bytes:
    """Audio at 16 kHz. Each of its blocks is different, so that tests notice a lost or repeated block."""
    state, values = seed, array("h")
    for _ in range(int(seconds * RATE)):
        state = (1103515245 * state + 12345) % 2147483648
        values.append((state >> 16) % 8192 - 4096)
    return values.tobytes()


@dataclass
class Speech:
    """A running server with a pool for sessions."""

    api: Api
    store: MemorySessions

    @property
    def client(self) -> Any:
        return self.api.client

    def open(
        self, *, status: int = 201, headers: dict[str, str] | None = None, **body: Any
    ) -> dict[str, Any]:
        """POST /v1/sessions. :returns: the session, or the problem."""
        response = self.client.post("/v1/sessions", json={"target": "de", **body}, headers=headers or {})
        assert response.status_code == status, response.text
        return response.json()

    def show(self, session: str, *, status: int = 200) -> dict[str, Any]:
        response = self.client.get(f"/v1/sessions/{session}")
        assert response.status_code == status, response.text
        return response.json()

    @contextmanager
    def socket(self, path: str) -> Iterator[Socket]:
        url = self.api.url.replace("http", "ws", 1) + path
        # Some tests read nothing for a while. A client that does not read misses the answer to its own ping.
        with connect(url, open_timeout=60, max_size=None, ping_interval=None) as connection:
            yield Socket(connection)

    def stream(self, session: str, **query: Any) -> Any:
        """The stream of a session."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return self.socket(f"/v1/sessions/{session}/stream?{text}")


@dataclass
class Socket:
    """A WebSocket whose messages are JSON or text."""

    connection: ClientConnection

    def send(self, message: bytes | str | dict[str, Any]) -> None:
        self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    def text(self) -> str:
        received = self.connection.recv(timeout=60)
        assert isinstance(received, str)
        return received

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text())
        return found

    def until(self, kind: str) -> dict[str, Any]:
        """Skip messages until one has the type ``kind``. :returns: this message."""
        while True:
            message = self.get()
            if message["type"] == kind:
                return message

    def rest(self) -> tuple[list[Any], int]:
        """All remaining messages, and the close code."""
        messages: list[Any] = []

        def read() -> None:
            while True:
                text = self.text()
                messages.append(json.loads(text) if text.startswith("{") else text)

        with pytest.raises(ConnectionClosed) as closed:
            read()
        assert closed.value.rcvd is not None
        return messages, closed.value.rcvd.code
