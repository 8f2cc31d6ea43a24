"""Writes the audio of one connection to the journal of its session.

All interfaces write through :class:`AudioInput`. It converts frames and writes them one after the other.
While audio waits, the connection is not read, which slows the client down. The audio also waits while the
model is too far behind, so a client that sends a whole recording at once cannot fill the store. If the store
does not answer, the write is repeated for a while. Each write names its position, so a repeated write is
harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from daybreak_server.api.sessions.audio.formats import AudioFormat, Converter
from daybreak_server.api.sessions.service import PATIENCE_S
from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE, SessionRecord, SessionState
from daybreak_server.ports.sessions import AudioBacklogError, SessionStore
from daybreak_server.ports.store_errors import StoreUnavailableError

MAX_AHEAD_S = 60
"""How much audio may wait for the model."""
_PIECE_S = 0.25
"""How much audio is converted before other connections get the event loop."""
_POLL_S = 0.1
_BACKOFF_S = (0.05, 1.0)


class AudioInput:
    """The audio of one connection. ``record``: the session after the last write."""

    def __init__(
        self, store: SessionStore, record: SessionRecord, form: AudioFormat, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.record = record
        self._store = store
        self._converter = Converter(form, received=record.received)
        self._patience_s = patience_s

    @property
    def send_from(self) -> int:
        """The position at which this connection begins, in samples of the client."""
        return self._converter.send_from

    @property
    def needed_from(self) -> int:
        """The position before which the client may delete its audio, in its samples."""
        return self._converter.format.position(self.record.received)

    @property
    def format(self) -> AudioFormat:
        """The format of the client."""
        return self._converter.format

    async def append(self, frame: bytes) -> None:
        """Write a frame. :raises ApiError: ``invalid_audio``; nothing of the frame has been written then.

        :raises StoreError: when the session has ended, or the store does not answer.
        """
        form = self._converter.format
        step = int(form.rate * _PIECE_S) * form.encoding.size
        if len(frame) <= step:
            await self._write(*self._convert(frame))
            return
        self._converter.check(frame)
        for first in range(0, len(frame), step):
            await self._write(*self._convert(frame[first : first + step]))
            await asyncio.sleep(0)

    async def silence(self, seconds: float) -> None:
        """Write silence."""
        form = self._converter.format
        await self.append(bytes(int(form.rate * seconds) * form.encoding.size))

    async def end(self) -> None:
        """Write the remaining output of the resampler, and end the input."""
        at = self._converter.position
        await self._write(at, self._converter.finish(), end=True)

    async def refresh(self) -> SessionRecord:
        """Read the session again."""
        session = self.record.session
        self.record = await self._store.session(session.id, tenant=session.tenant)
        return self.record

    def _convert(self, frame: bytes) -> tuple[int, bytes]:
        at = self._converter.position
        return at, self._converter.feed(frame)

    async def _write(self, at: int, samples: bytes, *, end: bool = False) -> None:
        if not samples and not end:
            return
        ahead = at + len(samples) // SAMPLE_BYTES - MAX_AHEAD_S * SAMPLE_RATE
        while ahead > self.record.consumed and self.record.state is not SessionState.ENDED:
            await asyncio.sleep(_POLL_S)
            await self._patiently(self.refresh)
        session = self.record.session.id

        async def append() -> SessionRecord:
            return await self._store.append_audio(session, samples, at=at, end=end)

        self.record = await self._patiently(append)

    async def _patiently(self, call: Callable[[], Awaitable[SessionRecord]]) -> SessionRecord:
        clock = asyncio.get_running_loop().time
        deadline, delay_s = clock() + self._patience_s, _BACKOFF_S[0]
        while True:
            try:
                return await call()
            except AudioBacklogError:
                # The model is behind, but the store has answered. So the time limit for the store starts
                # again.
                deadline, delay_s = clock() + self._patience_s, _POLL_S
            except StoreUnavailableError:
                if clock() + delay_s > deadline:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _BACKOFF_S[1])
