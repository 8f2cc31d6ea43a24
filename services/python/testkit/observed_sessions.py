"""The streaming sessions of the observed run (:mod:`.observed`): some are refused, change their group, lag or fail."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testkit.system import read, request
from testkit.waiting import wait_until

SPEECH = "speech"
"""A pool of the workload ``testkit.fragile_speech``, whose one group has room for :data:`ROOM` sessions. The model
needs a sixth of a block's duration to read one block, and more to write, so it cannot keep up with six speakers."""
ROOM, MAX_SESSIONS = 8, 10
_BLOCK_MS = 240
SETTINGS = {
    "POOLS__SPEECH__WORKLOAD": "testkit.fragile_speech:SPEC",
    "POOLS__SPEECH__CPUS_PER_RANK": "0.25",
    "POOLS__SPEECH__DRAIN_S": "0",
    "POOLS__SPEECH__OPTIONS": json.dumps(
        {"block_ms": _BLOCK_MS, "prefill_item_ms": _BLOCK_MS / 6, "max_sessions": ROOM}
    ),
    "POOLS__SPEECH__SESSIONS__MAX_SESSIONS": str(MAX_SESSIONS),
    "POOLS__SPEECH__SESSIONS__LAG_LIMIT_MS": "500",
    "POOLS__SPEECH__SESSIONS__MAX_LATENCY_MULTIPLIER": "2",
}
_RATE, _BYTES = 16_000, 2
_PIECE_S = 5.0


def noise(seconds: float) -> bytes:
    """Audio with sound in every sample."""
    return random.Random(7).randbytes(int(seconds * _RATE) * _BYTES)


class ObservedSessions:
    """Clients of sessions. ``gateway``: the address of the API."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway

    def open(self, count: int = 1) -> list[str]:
        """Try to open this many sessions. :returns: the ids of those that were not refused."""
        return [session for session in (self._open() for _ in range(count)) if session]

    def open_all(self, count: int) -> list[str]:
        """Open this many sessions. If one is refused, for example because sessions lagged a moment ago, try again."""
        opened: list[str] = []

        def look() -> bool:
            opened.extend(self.open(count - len(opened)))
            return len(opened) == count

        wait_until(look, 480, f"{count} open sessions of {SPEECH}", pause_s=0.5)
        return opened

    def _open(self) -> str:
        wanted = {"pool": SPEECH, "source": "en", "target": "de"}
        try:
            return str(request(f"{self._gateway}/v1/sessions", wanted)["id"])
        except urllib.error.HTTPError as exc:
            if exc.code == 429:
                return ""
            raise

    def speak(self, session: str, audio: bytes, *, end: bool = True) -> None:
        """Send the whole audio at once. The session's lag is computed as if the audio arrived in real time."""
        with self._stream(session) as socket:
            size = int(_PIECE_S * _RATE) * _BYTES
            for first in range(0, len(audio), size):
                socket.send(audio[first : first + size])
            if end:
                socket.send('{"type": "end"}')
            for message in socket:  # until the server has all audio, or the session ends
                shown = json.loads(message)
                if (
                    shown["type"] == "ended"
                    or shown.get("received_ms", 0) * _RATE * _BYTES >= len(audio) * 1000
                ):
                    return

    def _stream(self, session: str) -> ClientConnection:
        """A connection to the session. If the store does not answer in time (503), connect again."""
        url = self._gateway.replace("http", "ws", 1) + f"/v1/sessions/{session}/stream"

        def look() -> ClientConnection | None:
            try:
                return connect(url)
            except InvalidStatus as exc:
                if exc.response.status_code != 503:
                    raise
            return None

        return wait_until(look, 60, f"the stream of {session}", pause_s=0.2)

    def close(self, sessions: list[str]) -> None:
        """End these sessions at once, if they have not ended."""
        for session in sessions:
            outgoing = urllib.request.Request(f"{self._gateway}/v1/sessions/{session}", method="DELETE")
            read(outgoing)

    def close_all(self) -> None:
        """End all open sessions of the pool."""
        self.close([each["id"] for each in request(f"{self._gateway}/v1/sessions?pool={SPEECH}")["data"]])

    def wait_state(self, session: str, state: str) -> dict[str, Any]:
        """Wait until a session is in this state. :returns: the session."""

        def look() -> dict[str, Any] | None:
            shown: dict[str, Any] = request(f"{self._gateway}/v1/sessions/{session}")
            return shown if shown["state"] == state else None

        return wait_until(look, 480, f"{session} to be {state}")

    def group(self) -> str:
        """Wait for the group of the pool. :returns: its id."""

        def look() -> str | None:
            groups = request(f"{self._gateway}/v1/pools/{SPEECH}")["groups"]
            return next((str(group["id"]) for group in groups if group["state"] in {"idle", "busy"}), None)

        return wait_until(look, 180, f"the group of {SPEECH}")

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────

    def play(self) -> None:
        """Let sessions end for each reason except `idle`, and let one be refused. Prometheus computes a
        rate only from a counter that increases more than once, so there are three rounds."""
        self.group()
        for _ in range(3):
            speaking = self.open_all(2)
            for session in speaking:
                self.speak(session, noise(1.5))
            (fails,) = self.open_all(1)
            self.speak(fails, bytes(_RATE * _BYTES))
            for session in (*speaking, fails):
                self.wait_state(session, "ended")
        many = self.open(MAX_SESSIONS + 1)
        assert len(many) == MAX_SESSIONS, many
        self.close(many)

    def move(self, drain: Callable[..., None]) -> None:
        """Let a group drain, so that it releases its sessions. When it no longer drains, it claims them again."""
        group, moved = self.group(), self.open_all(3)
        for session in moved:
            self.wait_state(session, "active")
        drain(group, pool=SPEECH)
        for session in moved:
            self.wait_state(session, "waiting")
        drain(group, pool=SPEECH, on=False)
        for session in moved:
            self.wait_state(session, "active")
            self.speak(session, noise(1.0))
            assert self.wait_state(session, "ended")["attempt"] > 1
