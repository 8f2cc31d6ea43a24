"""Opens, finds and ends sessions for all interfaces."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError, session_not_found
from daybreak_server.api.sessions.pools import SessionPools
from daybreak_server.api.sessions.start_failures import StartFailures
from daybreak_server.domain.ids import pool_of, ulid
from daybreak_server.domain.sessions import (
    NewSession,
    SessionEnd,
    SessionEvent,
    SessionEventType,
    SessionId,
    SessionRecord,
    SessionState,
)
from daybreak_server.observability.session_log import log_refused
from daybreak_server.ports.session_tracing import OpeningTrace
from daybreak_server.ports.sessions import TENANT_LIMIT, SessionsFullError, SessionStore
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError

MAX_OUTAGE_S = 30.0
"""How long a connection stays open while the store does not answer."""
_BACKOFF_S = (0.1, 2.0)
_BEGINNING = "0-0"
"""An event id that comes before the first event."""
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SessionService:
    """Sessions as the routes use them."""

    def __init__(self, ctx: Dependencies) -> None:
        settings = ctx.services.settings.http
        self.pools = SessionPools(ctx.catalog, default=settings.default_pools.sessions)
        self._start_failures = StartFailures(ctx.pool_views)
        self.ctx = ctx
        self._max_per_tenant = settings.max_sessions_per_tenant

    @property
    def store(self) -> SessionStore:
        """The store of sessions."""
        return self.ctx.services.sessions

    async def open(
        self,
        caller: Principal,
        *,
        trace: OpeningTrace,
        pool: str | None,
        source: str | None,
        target: str | None,
        latency_multiplier: int = 1,
        client: str = "",
        options: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> SessionRecord:
        """Open a session. With the same ``key``, a repeated call returns the same session.

        :param trace: The trace of the request or of the connection. The session continues this trace.
        :raises ApiError: ``no_such_pool``, ``invalid_input``, ``too_many_streams``, ``not_ready``, or
            ``idempotency_mismatch`` if an earlier call with this ``key`` differed.
        :raises StoreError: if the pool takes no further session, or the store does not answer.
        """
        entry, pair = self.pools.choose(pool, lambda languages: languages.find(source, target))
        await self._start_failures.check(entry.name)
        new = NewSession(
            id=_new_id(entry.name, caller.tenant, key),
            pool=entry.name,
            tenant=caller.tenant,
            source=pair.source,
            target=pair.target,
            latency_multiplier=latency_multiplier,
            options=dict(options or {}),
            client=client,
            trace_context=trace.context,
        )
        record = await self._stored(new)
        if _of_client(record.session) != _of_client(new):
            raise ApiError(
                ErrorCode.IDEMPOTENCY_MISMATCH,
                "This Idempotency-Key was used with another body. Use a new key, or send the first body again.",
            )
        trace.opened(record)
        return record

    async def get(self, session: str, caller: Principal) -> SessionRecord:
        """The caller's session.

        :raises ApiError: ``not_found``, if the id names no pool of sessions.
        :raises SessionUnknownError: if there is no such session, or it belongs to another tenant.
        """
        return await self.store.session(self._known(session), tenant=caller.tenant)

    async def open_sessions(self, caller: Principal, pool: str | None) -> list[SessionRecord]:
        """The caller's open sessions in a pool, or in all pools, oldest first. Of each pool, this returns at
        most the oldest thousand.

        :raises ApiError: ``no_such_pool``.
        """
        names = [self.pools.get(pool).name] if pool else list(self.pools.entries)
        found: list[SessionRecord] = []
        for name in names:
            found += await self.store.sessions(name, tenant=caller.tenant)
        return sorted(found, key=lambda record: record.opened_ms)

    async def close(
        self, session: str, caller: Principal, *, reason: SessionEnd = SessionEnd.CLOSED
    ) -> SessionRecord:
        """End the caller's session. :raises ApiError: ``not_found``."""
        record = await self.get(session, caller)
        return await self.store.close_session(record.session.id, reason=reason)

    async def keep_alive(self, session: str, caller: Principal) -> SessionRecord:
        """Restart the time after which the caller's session counts as idle, as if audio had just arrived.

        :raises ApiError: ``not_found``.
        :raises SessionEndedError: when it has ended.
        """
        record = await self.get(session, caller)
        return await self.store.append_audio(record.session.id, b"", at=record.received)

    async def place_in_queue(self, record: SessionRecord) -> tuple[SessionRecord, int]:
        """The session, and its place among the waiting sessions of its pool, from 1; 0 if it does not wait.

        The session is read again if a group may have taken it in the meantime.
        """
        if record.state is not SessionState.WAITING:
            return record, 0
        pool, session = record.session.pool, record.session.id
        waiting = [
            other.session.id
            for other in await self.store.sessions(pool)
            if other.state is SessionState.WAITING
        ]
        if session in waiting:
            return record, waiting.index(session) + 1
        record = await self.store.session(session, tenant=record.session.tenant)
        if record.state is not SessionState.WAITING:
            return record, 0
        # The store lists the oldest sessions only, and this one is behind them.
        return record, max(1, (await self.store.sessions_overview(pool)).waiting)

    async def text(self, session: SessionId) -> str:
        """All text of a session so far."""
        parts: list[str] = []
        after = _BEGINNING
        while True:
            events = await self.store.session_events(session, after=after)
            if not events:
                return "".join(parts)
            after = events[-1].id
            parts += [
                str(event.data.get("text", "")) for event in events if event.type is SessionEventType.TEXT
            ]

    async def follow(
        self, session: SessionId, *, after: str = _BEGINNING
    ) -> AsyncGenerator[SessionEvent, None]:
        """The events that follow ``after``, up to the session's last one. If the store fails, the call to the store is
        repeated for a while.

        :raises StoreUnavailableError: when the store has not answered for ``MAX_OUTAGE_S``.
        :raises ApiError: ``not_ready``, if no group has begun the session and none can start. The session then ends.
        """
        clock = asyncio.get_running_loop().time
        failing_since: float | None = None
        delay_s = _BACKOFF_S[0]
        while True:
            began = clock()
            try:
                async with self._events(session, after) as events:
                    async for event in events:
                        yield event
                        after, failing_since, delay_s = event.id, None, _BACKOFF_S[0]
                return
            except ApiError:
                with suppress(StoreError):
                    await self.store.close_session(session)
                raise
            except StoreUnavailableError:
                if failing_since is None or clock() - began > MAX_OUTAGE_S:
                    failing_since = clock()
                if clock() - failing_since > MAX_OUTAGE_S:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _BACKOFF_S[1])

    @asynccontextmanager
    async def _events(
        self, session: SessionId, after: str
    ) -> AsyncGenerator[AsyncGenerator[SessionEvent, None], None]:
        """The events that follow ``after``, until the store fails."""
        stream = self.ctx.services.session_events.follow_session(session, after=after)
        async with aclosing(cast("AsyncGenerator[SessionEvent, None]", stream)) as events:
            if after != _BEGINNING:
                yield events
                return
            pool = pool_of(session) or ""
            async with aclosing(self._start_failures.until_begun(pool, events)) as begun:
                yield begun

    def _known(self, session: str) -> SessionId:
        if pool_of(session) not in self.pools.entries:
            raise session_not_found(session)
        return SessionId(session)

    async def _stored(self, new: NewSession) -> SessionRecord:
        try:
            return await self.store.open_session(new)
        except SessionsFullError as exc:
            log_refused(new, reason=exc.reason)
            if exc.reason != TENANT_LIMIT:
                raise
            raise ApiError(
                ErrorCode.TOO_MANY_STREAMS,
                f"The tenant {new.tenant!r} has {self._max_per_tenant:,} open sessions in the pool {new.pool}, the "
                "most it may have. Close one, or retry later.",
                limit="sessions_per_tenant",
                retry_after_s=5.0,
            ) from exc


def _of_client(new: NewSession) -> NewSession:
    """The session as its client requested it. The trace is left out, because it differs when a request is repeated."""
    return replace(new, trace_context=None)


def _new_id(pool: str, tenant: str, key: str | None) -> SessionId:
    """A new id. The same key gives the same id, so that the store recognizes the repeated request."""
    if key is None:
        return SessionId(f"{pool}_{ulid()}")
    number = int.from_bytes(hashlib.sha256(f"{tenant}\0{pool}\0{key}".encode()).digest()[:16], "big")
    return SessionId(f"{pool}_" + "".join(_LETTERS[number >> shift & 31] for shift in range(125, -1, -5)))
