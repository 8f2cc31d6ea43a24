"""Writes the audio of one connection to the journal of its session.

All interfaces write through :class:`AudioInput`. It converts frames and writes them one after the other. A frame is
read from the connection only after the previous one is written. This slows the client down. While the model is too far
behind, no frame is written, so a client that sends a whole recording at once cannot fill the store. If the store
does not answer or has no memory, the write is repeated for a while. Each write names its position, so a repeated write
is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.audio.formats import AudioFormat, Converter
from daybreak_server.api.sessions.service import MAX_OUTAGE_S, SessionService
from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE, SessionRecord, SessionState
from daybreak_server.ports.sessions import AudioBacklogError, SessionWatch
from daybreak_server.ports.store_errors import StoreFullError, StoreUnavailableError

MAX_AHEAD_S = 60
"""How much audio of a session may wait for the model. While more waits, the gateway does not read the connection."""
_PIECE_S = 0.25
"""How much audio is converted before the event loop serves other connections."""
_BACKOFF_S = (0.05, 1.0)


class AudioInput:
    """The audio of one connection. ``record``: the session as the store last returned it."""

    def __init__(
        self,
        service: SessionService,
        record: SessionRecord,
        form: AudioFormat,
        *,
        max_outage_s: float = MAX_OUTAGE_S,
    ) -> None:
        self.record = record
        self._service = service
        self._converter = Converter(form, received=record.received)
        self._patience_s = max_outage_s
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the client of this connection has ended its audio."""
        return self._ended

    @property
    def send_from(self) -> int:
        """The position at which the audio of this connection begins, in samples at the client's rate."""
        return self._converter.send_from

    @property
    def needed_from(self) -> int:
        """The position before which the client may delete its audio, in samples at the client's rate."""
        return self._converter.format.position(self.record.received)

    @property
    def format(self) -> AudioFormat:
        """The format of the client."""
        return self._converter.format

    async def append(self, frame: bytes) -> None:
        """Write a frame.

        :raises ApiError: ``invalid_audio``; no part of the frame is then written. ``conflict`` after :meth:`end`.
        :raises StoreError: when the session has ended, or the store has not answered for ``max_outage_s``.
        """
        if self._ended:
            raise ApiError(
                ErrorCode.CONFLICT, "The audio of this session has ended. Open a new session to send more."
            )
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
        """Write silence. Raises the errors of :meth:`append`."""
        form = self._converter.format
        await self.append(bytes(int(form.rate * seconds) * form.encoding.size))

    async def end(self) -> None:
        """Write the remaining output of the resampler, and end the input. :raises StoreError: as for :meth:`append`."""
        if not self._ended:
            self._ended = True
            at = self._converter.position
            await self._write(at, self._converter.finish(), end=True)

    def watch(self) -> AbstractAsyncContextManager[SessionWatch]:
        """A watch of the session."""
        session = self.record.session
        return self._service.ctx.services.session_events.watch_session(session.id, tenant=session.tenant)

    async def _until_consumed(self, position: int) -> None:
        """Wait until the model has processed the audio up to a position, or the session has ended."""
        async with self.watch() as watch:
            while True:
                self.record = await self._patiently(watch.read)
                if self.record.consumed >= position or self.record.state is SessionState.ENDED:
                    return
                await watch.progress()

    def _convert(self, frame: bytes) -> tuple[int, bytes]:
        at = self._converter.position
        return at, self._converter.feed(frame)

    async def _write(self, at: int, samples: bytes, *, end: bool = False) -> None:
        if not samples and not end:
            return
        ahead = at + len(samples) // SAMPLE_BYTES - MAX_AHEAD_S * SAMPLE_RATE
        if ahead > self.record.consumed and self.record.state is not SessionState.ENDED:
            await self._until_consumed(ahead)
        session = self.record.session.id

        async def append() -> SessionRecord:
            return await self._service.store.append_audio(session, samples, at=at, end=end)

        while True:
            try:
                self.record = await self._patiently(append)
                return
            except AudioBacklogError:  # other connections have also sent audio of this session
                await self._until_consumed(self.record.consumed + 1)

    async def _patiently(self, call: Callable[[], Awaitable[SessionRecord]]) -> SessionRecord:
        clock = asyncio.get_running_loop().time
        deadline, delay_s = clock() + self._patience_s, _BACKOFF_S[0]
        while True:
            try:
                return await call()
            except (StoreUnavailableError, StoreFullError):
                if clock() + delay_s > deadline:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _BACKOFF_S[1])
