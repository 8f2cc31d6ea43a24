"""Streaming sessions in the synchronous and the asynchronous client: ``client.sessions``."""

from __future__ import annotations

import builtins
from collections.abc import Coroutine, Generator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, cast

from daybreak.async_live_session import AsyncLiveSession
from daybreak.core import session_routes
from daybreak.core.retry import Retry, request_with_retries
from daybreak.core.speech import Speech
from daybreak.errors import DaybreakError
from daybreak.live_session import LiveSession
from daybreak.wire import Session
from daybreak.ws import require_websockets


class Sessions:
    """Streaming sessions, which turn speech into text while the speech arrives: ``client.sessions``."""

    def __init__(self, run: Any, retry: Retry, *, server: str, headers: Mapping[str, str]) -> None:
        self._run = run
        self._retry = retry
        self._server = server
        self._headers = headers

    def open(
        self,
        target: str,
        *,
        source: str | None = None,
        pool: str | None = None,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
        latency_multiplier: int = 1,
        name: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> LiveSession:
        """Open a session, and connect to it.

        ``target`` and ``source`` are languages: ``de`` or ``German``. ``encoding`` (``pcm16`` or ``float32``) and
        ``sample_rate`` describe the audio that you send; it has one channel. A larger ``latency_multiplier`` gives
        better text, with more delay. ``name`` is a label for the session. Raises ``QuotaError`` if the pool is full.
        """
        require_websockets()
        speech = Speech(encoding=encoding, sample_rate=sample_rate)
        body = _body(
            target,
            source=source,
            pool=pool,
            latency_multiplier=latency_multiplier,
            name=name,
            options=options,
        )
        session = self._run(request_with_retries(session_routes.open_session(body), self._retry))
        try:
            return self._live(session, speech)
        except DaybreakError:
            # Nobody will use the session, so it must not keep its place in the pool.
            with suppress(DaybreakError):
                self.close(session.id)
            raise

    def resume(
        self,
        session_id: str,
        *,
        after: str | None = None,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
    ) -> LiveSession:
        """Connect to an open session, even from another process. ``after`` is the id of the last event that you saw.

        Send audio from :attr:`.LiveSession.position` on.
        """
        require_websockets()
        speech = Speech(encoding=encoding, sample_rate=sample_rate, after=after)
        return self._live(self.get(session_id), speech)

    def get(self, session_id: str) -> Session:
        """Return a session in its current state."""
        return cast("Session", self._run(request_with_retries(session_routes.get(session_id), self._retry)))

    def list(self, *, pool: str | None = None) -> builtins.list[Session]:
        """Return your open sessions, oldest first."""
        found = self._run(request_with_retries(session_routes.list_sessions(pool), self._retry))
        return builtins.list(found)

    def close(self, session_id: str) -> Session:
        """End a session at once. A session that has ended stays as it is."""
        found = self._run(request_with_retries(session_routes.close(session_id), self._retry))
        return cast("Session", found)

    def _live(self, session: Session, speech: Speech) -> LiveSession:
        return LiveSession(session, speech, server=self._server, headers=self._headers, retry=self._retry)


class OpeningSession:
    """A session that is being opened. ``await`` it, or use it in ``async with``, to get the live session."""

    def __init__(self, opening: Coroutine[Any, Any, AsyncLiveSession]) -> None:
        self._opening = opening
        self._live: AsyncLiveSession | None = None

    def __await__(self) -> Generator[Any, None, AsyncLiveSession]:
        return self._opening.__await__()

    async def __aenter__(self) -> AsyncLiveSession:
        self._live = await self._opening
        return await self._live.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            await self._live.__aexit__(kind, error, trace)


class AsyncSessions:
    """Streaming sessions, which turn speech into text while the speech arrives: ``client.sessions``."""

    def __init__(self, run: Any, retry: Retry, *, server: str, headers: Mapping[str, str]) -> None:
        self._run = run
        self._retry = retry
        self._server = server
        self._headers = headers

    def open(
        self,
        target: str,
        *,
        source: str | None = None,
        pool: str | None = None,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
        latency_multiplier: int = 1,
        name: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> OpeningSession:
        """Open a session, and connect to it: ``async with client.sessions.open("de") as session``, or ``await`` it.

        ``target`` and ``source`` are languages: ``de`` or ``German``. ``encoding`` (``pcm16`` or ``float32``) and
        ``sample_rate`` describe the audio that you send; it has one channel. A larger ``latency_multiplier`` gives
        better text, with more delay. ``name`` is a label for the session. Raises ``QuotaError`` if the pool is full.
        """
        require_websockets()
        speech = Speech(encoding=encoding, sample_rate=sample_rate)
        body = _body(
            target,
            source=source,
            pool=pool,
            latency_multiplier=latency_multiplier,
            name=name,
            options=options,
        )
        return OpeningSession(self._open(body, speech))

    async def _open(self, body: Mapping[str, Any], speech: Speech) -> AsyncLiveSession:
        session = await self._run(request_with_retries(session_routes.open_session(body), self._retry))
        try:
            return await self._live(session, speech)
        except DaybreakError:
            # Nobody will use the session, so it must not keep its place in the pool.
            with suppress(DaybreakError):
                await self.close(session.id)
            raise

    async def resume(
        self,
        session_id: str,
        *,
        after: str | None = None,
        encoding: str = "pcm16",
        sample_rate: int = 16_000,
    ) -> AsyncLiveSession:
        """Connect to an open session, even from another process. ``after`` is the id of the last event that you saw.

        Send audio from :attr:`.AsyncLiveSession.position` on.
        """
        require_websockets()
        speech = Speech(encoding=encoding, sample_rate=sample_rate, after=after)
        return await self._live(await self.get(session_id), speech)

    async def get(self, session_id: str) -> Session:
        """Return a session in its current state."""
        found = await self._run(request_with_retries(session_routes.get(session_id), self._retry))
        return cast("Session", found)

    async def list(self, *, pool: str | None = None) -> builtins.list[Session]:
        """Return your open sessions, oldest first."""
        found = await self._run(request_with_retries(session_routes.list_sessions(pool), self._retry))
        return builtins.list(found)

    async def close(self, session_id: str) -> Session:
        """End a session at once. A session that has ended stays as it is."""
        found = await self._run(request_with_retries(session_routes.close(session_id), self._retry))
        return cast("Session", found)

    async def _live(self, session: Session, speech: Speech) -> AsyncLiveSession:
        live = AsyncLiveSession(
            session, speech, server=self._server, headers=self._headers, retry=self._retry
        )
        return await live.start()


def _body(
    target: str,
    *,
    source: str | None,
    pool: str | None,
    latency_multiplier: int,
    name: str,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The body of ``POST /v1/sessions``."""
    return {
        "pool": pool,
        "source": source,
        "target": target,
        "latency_multiplier": latency_multiplier,
        "client": name,
        "options": dict(options or {}),
    }
