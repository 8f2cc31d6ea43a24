"""The metrics of a pool's sessions, as samples of the values that were last read from Redis."""

from __future__ import annotations

from collections.abc import Iterator

from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.session_totals import SessionTotals
from daybreak_server.domain.sessions import SessionsOverview, SessionState
from daybreak_server.observability import session_catalogue as catalogue
from daybreak_server.observability.samples import Sample


def of_overview(pool: str, overview: SessionsOverview) -> Iterator[Sample]:
    """Samples of the present state."""
    counts = {SessionState.ACTIVE: overview.open - overview.waiting, SessionState.WAITING: overview.waiting}
    for state, count in counts.items():
        yield catalogue.SESSIONS, (pool, state.value), count
    yield catalogue.SESSIONS_ROOM, (pool,), overview.room


def of_totals(totals: PoolTotals) -> Iterator[Sample]:
    """Samples of what has happened since the first session."""
    pool, sessions = totals.name, SessionTotals.of(totals)
    yield catalogue.SESSIONS_OPENED, (pool,), sessions.opened
    yield catalogue.SESSIONS_SECONDS, (pool,), sessions.seconds
    for metric, counts in (
        (catalogue.SESSIONS_REFUSED, sessions.refused),
        (catalogue.SESSIONS_MOVED, sessions.moved),
        (catalogue.SESSIONS_ENDED, sessions.ended),
    ):
        for reason, count in counts.items():
            yield metric, (pool, reason), count
    for which, waits in sessions.waits.items():
        yield catalogue.SESSION_WAIT, (pool, which), waits
