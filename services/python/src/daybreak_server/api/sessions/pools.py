"""Chooses the pool of a session. The client names a pool or the model of a pool; otherwise, it is the default
pool."""

from __future__ import annotations

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError
from daybreak_server.api.intake.catalog import Catalog, PoolEntry
from daybreak_server.api.sessions.languages import Languages
from daybreak_server.domain.kinds import PoolKind


class SessionPools:
    """The pools of the kind ``sessions``. A pool's name takes precedence over a model's."""

    def __init__(self, catalog: Catalog, *, default: str | None) -> None:
        self.entries = {entry.name: entry for entry in catalog if entry.spec.kind == PoolKind.SESSIONS}
        self.languages = {name: Languages(entry) for name, entry in self.entries.items()}
        self._names = {entry.model_name: name for name, entry in self.entries.items() if entry.model_name}
        self._names |= {name: name for name in self.entries}
        self._default = default

    def find(self, name: str | None) -> PoolEntry | None:
        """The pool of that name, if there is one."""
        pool = self._names.get(name or "")
        return self.entries.get(pool) if pool is not None else None

    def get(self, name: str | None = None) -> PoolEntry:
        """The pool of that name; without a name, the default one. :raises ApiError: ``no_such_pool``."""
        if name:
            found = self.find(name)
            if found is None:
                known = ", ".join(sorted(self._names)) or "none"
                raise ApiError(
                    ErrorCode.NO_SUCH_POOL,
                    f"There is no pool {name[:MAX_FIELD_CHARS]!r} for sessions. Those are: {known}.",
                )
            return found
        if self._default is not None:
            return self.get(self._default)
        if len(self.entries) == 1:
            return next(iter(self.entries.values()))
        if not self.entries:
            message = "No pool serves sessions. An administrator must add one."
        else:
            message = f"Several pools serve sessions: {', '.join(self.entries)}. Name one."
        raise ApiError(ErrorCode.NO_SUCH_POOL, message)
