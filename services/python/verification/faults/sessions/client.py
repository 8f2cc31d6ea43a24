"""Clients that speak in real time into one session each, and record what they see.

A client opens its session at one gateway and connects to the session's stream. If the connection breaks, the client
connects to the next gateway, with the id of the last event that it has, and sends again from the position that the
server names. It keeps all audio until the session ends, even the audio that the server has acknowledged. If the server
asks for acknowledged audio again, the client sends the audio, and the checker reports a fault.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE
from verification.faults.history import History
from verification.faults.sessions.speech import expected_text, float32, noise

FRAME_S = 0.1
_RETRY_S = 0.2
_TIMEOUT_S = 60.0
"""How long a client tries to reach a gateway or waits for the rest of its text."""


class NoEndError(Exception):
    """A session could not be opened, or was still open long after its audio had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The actions of a client."""

    number: int
    seconds: float
    target: str = "de"
    encoding: str = "pcm16"
    frame_bytes: int | None = None
    """The size of a frame. It need not be a multiple of the size of a sample. ``None`` means a tenth of a second."""
    silent_after_s: float | None = None
    """After this much audio, the client sends nothing more, and does not end its input."""
    absurd: Mapping[int, bytes] = field(default_factory=dict)
    """Frames with samples that no audio has, such as NaN. The key is the number of the frame before which the client
    sends the absurd frame. The server must refuse each absurd frame."""
    huge: int | None = None
    """The number of the frame before which the client sends a frame above the server's limit."""


class SpeechClient:
    """One client, with one session."""

    def __init__(self, script: Script, urls: Sequence[str], pool: str, history: History, seed: int) -> None:
        self.script = script
        self._urls = urls
        self._pool = pool
        self._history = history
        self._gateway = script.number % len(urls)
        audio = noise(script.seconds, seed=f"{seed}/{script.number}")
        if script.silent_after_s is not None:
            audio = audio[: int(script.silent_after_s * SAMPLE_RATE) * SAMPLE_BYTES]
        self._pcm = audio
        self._audio = float32(audio) if script.encoding == "float32" else audio
        self._sample = 4 if script.encoding == "float32" else SAMPLE_BYTES
        self._after = "0-0"
        self._began = 0.0
        self._done_absurd: set[int] = set()
        self._huge_sent = False
        self.session = ""
        self.texts = 0
        """The number of pieces of text that the client has received."""
        self.ended = False

    async def run(self) -> None:
        """Speak, and read until the session ends. :raises NoEndError: if it does not."""
        self.session = await self._open()
        script = self.script
        self._history.note(
            "session",
            kind="begin",
            session=self.session,
            client=script.number,
            samples=len(self._pcm) // SAMPLE_BYTES,
            text=expected_text(self._pcm, script.target) if script.silent_after_s is None else None,
            reason="finished" if script.silent_after_s is None else "idle",
            absurd=len(script.absurd),
        )
        self._began = time.monotonic()
        limit_s = script.seconds + _TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s):
                while not self.ended:
                    await self._connection()
        except TimeoutError:
            raise NoEndError(f"session {self.session} has not ended after {limit_s:.0f} s") from None

    async def _open(self) -> str:
        body = {"pool": self._pool, "target": self.script.target, "client": f"client {self.script.number}"}
        headers = {"Idempotency-Key": f"client-{self.script.number}"}
        until = time.monotonic() + _TIMEOUT_S
        async with httpx.AsyncClient(timeout=10) as http:
            while True:
                try:
                    answer = await http.post(f"{self._url}/v1/sessions", json=body, headers=headers)
                    if answer.status_code == 201:
                        return str(answer.json()["id"])
                    problem = answer.text
                except httpx.TransportError as exc:
                    problem = str(exc)
                if time.monotonic() > until:
                    raise NoEndError(f"no session could be opened: {problem}")
                self._other_gateway()
                await asyncio.sleep(_RETRY_S)

    @property
    def _url(self) -> str:
        return self._urls[self._gateway]

    def _other_gateway(self) -> None:
        self._gateway = (self._gateway + 1) % len(self._urls)

    async def _connection(self) -> None:
        """One connection, until it breaks or the session ends."""
        query = f"encoding={self.script.encoding}&after={self._after}"
        url = f"{self._url.replace('http', 'ws', 1)}/v1/sessions/{self.session}/stream?{query}"
        code, reason = 0, ""
        try:
            async with connect(url, open_timeout=10, max_size=None, proxy=None) as socket:
                code, reason = await self._converse(socket)
        except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed) as exc:
            reason = f"{type(exc).__name__}: {exc}"
        self._note("closed", code=code, reason=reason)
        if not self.ended:
            self._other_gateway()
            await asyncio.sleep(_RETRY_S)

    async def _converse(self, socket: ClientConnection) -> tuple[int, str]:
        speaking: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "ready":
                    self._note("ready", send_from=message["send_from"])
                    speaking = asyncio.create_task(self._speak(socket, message["send_from"]))
                else:
                    self._on_message(message)
        except ConnectionClosed:
            pass
        finally:
            if speaking is not None:
                speaking.cancel()
                await asyncio.wait([speaking])
        return socket.close_code or 0, socket.close_reason or ""

    def _on_message(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "received":
                self._note("received", send_from=message["send_from"])
            case "error":
                self._note("error", code=message["code"], fatal=message["fatal"], message=message["message"])
            case kind:
                self._after = message["id"]
                self.texts += kind == "text"
                self._note("event", id=message["id"], type=kind, data=message["data"])
                self.ended = kind == "ended"

    async def _speak(self, socket: ClientConnection, position: int) -> None:
        """Send the audio from a position on, in real time."""
        script, at = self.script, position * self._sample
        size = script.frame_bytes or int(FRAME_S * SAMPLE_RATE) * self._sample
        try:
            while at < len(self._audio):
                await self._send_absurd_frame(socket, at // size)
                frame = self._audio[at : at + size]
                spoken_s = min(len(self._audio), at + size) / self._sample / SAMPLE_RATE
                await asyncio.sleep(max(0.0, self._began + spoken_s - time.monotonic()))
                await socket.send(frame)
                at += len(frame)
                self._note("sent", kind="saw", upto=at // self._sample)
            if script.silent_after_s is None:
                await socket.send(json.dumps({"type": "end"}))
        except ConnectionClosed:
            return  # `_converse` sees the end of the connection too

    async def _send_absurd_frame(self, socket: ClientConnection, frame: int) -> None:
        absurd = self.script.absurd.get(frame)
        if absurd is not None and frame not in self._done_absurd:
            self._done_absurd.add(frame)
            await socket.send(absurd)
        if frame == self.script.huge and not self._huge_sent:
            self._huge_sent = True
            await socket.send(bytes(2 << 20))

    def _note(self, op: str, *, kind: str = "saw", **fields: Any) -> None:
        self._history.note(op, kind=kind, session=self.session, **fields)
