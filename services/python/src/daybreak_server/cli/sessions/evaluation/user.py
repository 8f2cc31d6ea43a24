"""One user of an evaluation, who sends audio in real time and records when each word arrives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from daybreak import AsyncClient
from daybreak.async_live_session import AsyncLiveSession
from daybreak.errors import DaybreakError
from daybreak_server.cli.sessions.evaluation.latency import TimedWord
from daybreak_server.cli.sessions.evaluation.speeches import RATE, SAMPLE_BYTES, RecordedSpeech
from daybreak_server.cli.sessions.evaluation.text_quality import words

_CHUNK_S = 0.1
_TIMEOUT_S = 120.0
"""How much longer than its audio a session may take."""


@dataclass(slots=True)
class Talk:
    """The observations of a user. Times are measured from the beginning of the audio."""

    speech: RecordedSpeech
    text: str = ""
    timed: list[TimedWord] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    """For each piece of text: the seconds from the end of its audio until the text arrived."""
    sent_s: float | None = None
    """When the last audio was sent."""
    ended_s: float | None = None
    """When the session ended."""
    degraded: int = 0
    """How often the group changed the length of the session's turns."""
    error: str | None = None

    @property
    def first_text_s(self) -> float | None:
        """When the first text arrived."""
        return self.timed[0].arrived_s if self.timed else None

    @property
    def grew(self) -> bool:
        """Whether text arrived while the user still spoke."""
        return self.first_text_s is not None and self.sent_s is not None and self.first_text_s < self.sent_s

    def add(self, text: str, *, audio_s: float, arrived_s: float) -> None:
        """Record text that has arrived."""
        self.text += text
        self.lags_s.append(arrived_s - audio_s)
        for word in words(self.text)[len(self.timed) :]:
            self.timed.append(TimedWord(word=word, audio_s=audio_s, arrived_s=arrived_s))


async def talk(client: AsyncClient, speech: RecordedSpeech, *, pool: str, target: str, name: str) -> Talk:
    """Send a speech in real time, and wait until the session ends. An error is stored in the result, not raised."""
    result = Talk(speech)
    try:
        async with (
            asyncio.timeout(speech.seconds + _TIMEOUT_S),
            client.sessions.open(target, pool=pool, name=name) as live,
        ):
            began = asyncio.get_running_loop().time()
            listener = asyncio.create_task(_listen(live, result, began))
            try:
                await _speak(live, speech, began)
                result.sent_s = asyncio.get_running_loop().time() - began
                await listener
            finally:
                listener.cancel()
    except DaybreakError as error:
        result.error = str(error)
    except TimeoutError:
        result.error = f"the session did not end within {_TIMEOUT_S:g} s after its audio"
    return result


async def undisturbed(client: AsyncClient, audio: bytes, *, pool: str, target: str) -> str:
    """The text that the model writes for a recording that is sent all at once."""
    async with client.sessions.open(target, pool=pool, name="evaluation: reference") as live:
        await live.send(audio)
        return await live.text()


async def _speak(live: AsyncLiveSession, speech: RecordedSpeech, began: float) -> None:
    """Send each chunk at the time when a microphone would have recorded all of it."""
    size = int(_CHUNK_S * RATE) * SAMPLE_BYTES
    clock = asyncio.get_running_loop().time
    for number, first in enumerate(range(0, len(speech.audio), size), 1):
        await asyncio.sleep(max(0.0, began + number * _CHUNK_S - clock()))
        await live.send(speech.audio[first : first + size])
    await live.end()


async def _listen(live: AsyncLiveSession, result: Talk, began: float) -> None:
    async for event in live:
        now = asyncio.get_running_loop().time() - began
        if event.type == "text":
            result.add(event.text, audio_s=event.data["audio_ms"] / 1000, arrived_s=now)
        elif event.type == "degraded":
            result.degraded += 1
        elif event.type == "ended":
            result.ended_s = now
            if event.data["reason"] != "finished":
                result.error = f"the session ended: {event.data['reason']}"
