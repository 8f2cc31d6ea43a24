"""The store of sessions on Redis, as gateways use it. Its methods are coroutines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from daybreak_server.adapters.redis import changes
from daybreak_server.adapters.redis import codec as shared_codec
from daybreak_server.adapters.redis.arguments import SessionPage, SessionWatching
from daybreak_server.adapters.redis.client import AsyncScripts, OnCall, connect_async
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.limits import SESSION_LIST_MAX
from daybreak_server.adapters.redis.scripts import Call, Library
from daybreak_server.adapters.redis.sessions import calls, codec
from daybreak_server.adapters.redis.sessions.calls import SessionLimits
from daybreak_server.domain.changes import OnChange
from daybreak_server.domain.ids import GroupId, pool_of
from daybreak_server.domain.sessions import (
    GroupSessions,
    NewSession,
    SessionEnd,
    SessionEvent,
    SessionId,
    SessionRecord,
    SessionsOverview,
)


class RedisSessionStore:
    """The :class:`~daybreak_server.ports.sessions.SessionStore`. ``limits`` returns the present limits of a
    pool."""

    def __init__(
        self,
        where: str | Endpoint,
        *,
        limits: Callable[[str], SessionLimits] = lambda _pool: SessionLimits(),
        prefix: str = "daybreak",
        timeout_s: float = 5.0,
        library: Library | None = None,
        on_call: OnCall | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        self._client = connect_async(where, timeout_s=timeout_s)
        self._scripts = AsyncScripts(self._client, library or Library(), on_call=on_call, on_change=on_change)
        self._limits = limits
        self._prefix = prefix

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()
        await self._client.aclose()

    async def open_session(self, new: NewSession) -> SessionRecord:
        """Open a session. See the port."""
        call = calls.open_session(self._keys(new.pool), new, self._limits(new.pool))
        return calls.opened(await self._call(call), new.pool)

    async def session(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """The session. :raises SessionUnknownError: when the tenant has no such session."""
        keys = self._keys_of(session)
        fields = await self._scripts.perform(
            lambda: self._client.hgetall(keys.of("session", session)), idempotent=True
        )
        if not fields or shared_codec.text(fields[b"tenant"]) != tenant:
            raise calls.unknown(session)
        return codec.record([session, [word for pair in fields.items() for word in pair]])

    async def announce_progress(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """Return the session, and ask the store to announce the model's next progress. See the port."""
        watching = SessionWatching(session=session, tenant=tenant)
        return calls.appended(
            await self._call(Call("session_watch", self._keys_of(session), watching)), session
        )

    async def sessions(self, pool: str, *, tenant: str | None = None) -> Sequence[SessionRecord]:
        """The sessions of a pool or of one of its tenants. See the port."""
        page = SessionPage(tenant=tenant or "", limit=SESSION_LIST_MAX)
        reply = await self._call(Call("session_list", self._keys(pool), page))
        return [codec.record(shown) for shown in reply]

    async def append_audio(
        self, session: SessionId, samples: bytes, *, at: int, end: bool = False
    ) -> SessionRecord:
        """Append audio. See the port."""
        call = calls.append(self._keys_of(session), session, samples, at=at, end=end)
        return calls.appended(await self._call(call), session)

    async def close_session(
        self, session: SessionId, *, reason: SessionEnd = SessionEnd.CLOSED
    ) -> SessionRecord:
        """End a session at once. An ended session does not change."""
        keys = self._keys_of(session)
        call = calls.close(keys, session, reason, target_load=self._limits(keys.pool).target_load)
        return calls.appended(await self._call(call), session)

    async def session_events(
        self, session: SessionId, *, after: str = "0-0", limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """The events that follow ``after``."""
        key = self._keys_of(session).of("session_history", session)
        entries: Any = await self._scripts.perform(
            lambda: self._client.xrange(key, min=f"({after}", count=limit), idempotent=True
        )
        return [codec.event(entry, fields) for entry, fields in entries]

    async def sessions_overview(self, pool: str) -> SessionsOverview:
        """The number of the pool's sessions, and the measurements of its groups."""
        keys = self._keys(pool)
        published = await self._scripts.perform(
            lambda: self._client.hgetall(keys.single("session_groups")), idempotent=True
        )
        groups = {shared_codec.text(group): codec.measured(stored) for group, stored in published.items()}

        async def counts() -> list[int]:
            pipe = self._client.pipeline(transaction=False)
            for name in ("sessions", "sessions_waiting"):
                pipe.zcard(keys.single(name))
            for group in groups:
                pipe.scard(keys.of("group_sessions", group))
            return list(await pipe.execute())

        total, waiting, *owned = await self._scripts.perform(counts, idempotent=True)
        return SessionsOverview(
            open=total,
            waiting=waiting,
            groups=tuple(
                GroupSessions(group=GroupId(group), sessions=sessions, measured=measured)
                for (group, measured), sessions in zip(groups.items(), owned, strict=True)
            ),
        )

    async def _call(self, call: Call) -> Any:
        return await self._scripts.call(call, idempotent=True)

    def _keys(self, pool: str) -> Keys:
        return Keys(prefix=self._prefix, pool=pool)

    def _keys_of(self, session: SessionId) -> Keys:
        pool = pool_of(session)
        if pool is None:
            raise calls.unknown(session)
        return self._keys(pool)
