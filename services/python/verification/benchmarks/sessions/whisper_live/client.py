"""A client of WhisperLive: speaks in real time, and notes how late the text is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from daybreak_server.cli.sessions.evaluation.speeches import RATE, SAMPLE_BYTES, RecordedSpeech

CHUNK_S = 0.1
READY_S = 120.0
"""How long a client waits until the server is ready. The first client also waits until the model is loaded."""
TIMEOUT_S = 30.0
"""How long a client waits, after it has sent the last audio, for the rest of the text."""
NEAR_S = 0.5
"""Whisper's times are inexact. Text that ends at most this long before the end of the speech counts as complete."""


class RefusedError(Exception):
    """The server takes no further client."""


@dataclass(slots=True)
class Received:
    """What the server sent back. Times count from the start of the speech."""

    lags_s: list[float] = field(default_factory=list)
    """One lag for each message whose text covers more audio than before: how long ago the end of that audio was spoken.
    If the client stops waiting for the rest of the text, the lag at that moment is the last figure."""
    covered_s: float = 0.0
    """How much audio the text covers, according to the times in the server's messages."""
    text: str = ""
    """The newest sentences."""
    complete: bool = False
    """Whether the text covers all of the speech."""

    def receive(self, segments: Iterable[Mapping[str, Any]], *, now_s: float) -> None:
        """Note the newest segments, which have just arrived."""
        found = list(segments)
        self.text = " ".join(str(segment["text"]).strip() for segment in found)
        covered = max((float(segment["end"]) for segment in found), default=0.0)
        if covered > self.covered_s:
            self.covered_s = covered
            self.lags_s.append(now_s - covered)


async def talk(port: int, speech: RecordedSpeech, *, name: str) -> Received:
    """Speak, and wait for the text. :raises RefusedError: if the server is full."""
    options = {
        "uid": name,
        "language": "en",
        "task": "transcribe",
        "model": "base",
        "use_vad": False,
        "audio_format": "int16",
    }
    async with connect(f"ws://127.0.0.1:{port}", max_size=None) as socket:
        await socket.send(json.dumps(options))
        await _ready(socket)
        return await _speak(socket, speech)


async def _ready(socket: ClientConnection) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            message = json.loads(await socket.recv())
            if message.get("message") == "SERVER_READY":
                return
            if message.get("status") in {"WAIT", "ERROR"}:
                raise RefusedError(f"{message['status']}: {message.get('message')}")


async def _speak(socket: ClientConnection, speech: RecordedSpeech) -> Received:
    received, clock = Received(), asyncio.get_running_loop().time
    began, last_s = clock(), speech.segments[-1].end_s - NEAR_S
    complete = asyncio.Event()

    async def listen() -> None:
        try:
            async for message in socket:
                content = json.loads(message)
                received.receive(content.get("segments", ()), now_s=clock() - began)
                if received.covered_s >= last_s:
                    complete.set()
        except ConnectionClosed:
            pass

    listening = asyncio.create_task(listen())
    try:
        size = int(CHUNK_S * RATE) * SAMPLE_BYTES
        for number, first in enumerate(range(0, len(speech.audio), size), 1):
            await asyncio.sleep(max(0.0, began + number * CHUNK_S - clock()))
            await socket.send(speech.audio[first : first + size])
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await complete.wait()
            received.complete = True
        except TimeoutError:
            received.lags_s.append(clock() - began - received.covered_s)
        await socket.send(b"END_OF_AUDIO")
    finally:
        listening.cancel()
    return received
