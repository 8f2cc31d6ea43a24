"""Chooses the pool of a session.

The client may name a pool or the model of a pool. Otherwise, the session gets the default pool
(``http.default_pools.sessions``). If there is no default pool, or if its model does not support the session's pair of
languages, the session gets the only pool whose model supports this pair.
"""

from __future__ import annotations

from collections.abc import Callable

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError
from daybreak_server.api.intake.catalog import Catalog, PoolEntry
from daybreak_server.api.sessions.languages import Languages
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.workloads.languages import LanguagePair

FindPair = Callable[[Languages], LanguagePair]
"""Finds a request's pair of languages among the pairs of a pool, or raises an ``ApiError``."""


class SessionPools:
    """The pools of the kind ``sessions``. If a pool and a model have the same name, the name means the pool."""

    def __init__(self, catalog: Catalog, *, default: str | None) -> None:
        self.entries = {entry.name: entry for entry in catalog if entry.spec.kind == PoolKind.SESSIONS}
        self.languages = {name: Languages(entry) for name, entry in self.entries.items()}
        self._names = {entry.model_name: name for name, entry in self.entries.items() if entry.model_name}
        self._names |= {name: name for name in self.entries}
        self._default = default

    def find(self, name: str | None) -> PoolEntry | None:
        """The pool with that name, or with a model of that name; ``None`` if there is no such pool."""
        pool = self._names.get(name or "")
        return self.entries.get(pool) if pool is not None else None

    def get(self, name: str | None = None) -> PoolEntry:
        """The pool of that name. Without a name, the default pool, or the only pool if there is no default.

        :raises ApiError: ``no_such_pool``.
        """
        if name:
            found = self.find(name)
            if found is None:
                raise ApiError(
                    ErrorCode.NO_SUCH_POOL,
                    f"There is no pool {name[:MAX_FIELD_CHARS]!r} for sessions. Valid names are: {self._known()}.",
                )
            return found
        if self._default is not None:
            found = self.find(self._default)
            if found is None:
                raise ApiError(
                    ErrorCode.NO_SUCH_POOL,
                    f"The setting http.default_pools.sessions names {self._default!r}, but there is no such pool for "
                    f"sessions. Valid names are: {self._known()}. Name one in each request until an administrator "
                    "corrects the setting.",
                )
            return found
        if len(self.entries) == 1:
            return next(iter(self.entries.values()))
        if not self.entries:
            message = (
                "No pool serves sessions. To start a server that has one, with the tiny model of the package, run "
                "`DAYBREAK_POOLS__SPEECH__WORKLOAD=speech daybreakd dev`. In other installations, an administrator "
                "must add a pool with the workload `speech`."
            )
        else:
            message = f"Several pools serve sessions: {', '.join(self.entries)}. Name one."
        raise ApiError(ErrorCode.NO_SUCH_POOL, message)

    def choose(self, name: str | None, find: FindPair) -> tuple[PoolEntry, LanguagePair]:
        """The pool of a session, and its pair of languages. Without a name, the default pool is preferred.

        :raises ApiError: ``no_such_pool``, also if several pools have the pair; the error of ``find`` if no pool has it
        """
        if name or len(self.entries) < 2:
            entry = self.get(name)
            return entry, find(self.languages[entry.name])
        having: list[tuple[PoolEntry, LanguagePair]] = []
        refusals: list[ApiError] = []
        default = self.get() if self._default is not None else None
        for entry in sorted(self.entries.values(), key=lambda entry: entry is not default):
            try:
                having.append((entry, find(self.languages[entry.name])))
            except ApiError as exc:
                refusals.append(exc)
                continue
            if entry is default:
                break
        if not having:
            raise refusals[0]
        if len(having) > 1:
            names = ", ".join(entry.name for entry, _ in having)
            message = f"Several pools serve this pair of languages: {names}. Name one."
            raise ApiError(ErrorCode.NO_SUCH_POOL, message)
        return having[0]

    def _known(self) -> str:
        return ", ".join(sorted(self._names)) or "none"
