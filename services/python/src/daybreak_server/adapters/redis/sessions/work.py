"""The sessions of one pool on Redis, as the leader of a group uses them. The calls block.

A group uses one connection to wait for audio, however many sessions it has. Scripts announce in the group's inbox which
sessions have new audio, and which sessions the group has lost. The inbox is a stream whose name ends in the nonce of
the group's tokens. ``read_audio`` waits for entries of the inbox, and then reads the audio of the sessions that they
name. An inbox may lose entries, because Redis trims it or because it expires during an outage. So after an error, and
every ``CHECK_S`` seconds, ``read_audio`` reads all sessions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from daybreak_server.adapters.redis import changes
from daybreak_server.adapters.redis.client import OnCall, Scripts, connect, translate, translated
from daybreak_server.adapters.redis.codec import text
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.limits import SESSION_INBOX_MAX
from daybreak_server.adapters.redis.scripts import Library
from daybreak_server.adapters.redis.sessions import calls, codec
from daybreak_server.domain import policy
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.changes import OnChange
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    Intake,
    SessionClaim,
    SessionCommit,
    SessionId,
    SessionLease,
    SessionNews,
    SessionsMeasured,
)
from daybreak_server.ports.sessions import take_all
from daybreak_server.ports.store_errors import StoreUnavailableError

CHECK_S = 5.0
"""How often a group reads all its sessions, in case its inbox lost an entry."""
_BLOCK_S = 5.0
"""The longest time that one call blocks in Redis."""
_RETRY_SOON_S = 0.1
_DRAIN_PAUSE_S = 0.5
_ORPHANS_PAUSE_S = 0.25
"""How often a group looks for orphans while it takes no other sessions."""


@dataclass(slots=True)
class _Named:
    """The sessions that the inbox named."""

    all: bool
    audio: set[SessionId] = field(default_factory=set)
    gone: dict[SessionId, str] = field(default_factory=dict)
    """The sessions that the group has lost: session → reason."""


class RedisSessionWork:
    """The :class:`~daybreak_server.ports.sessions.SessionWork` of one pool, for one group."""

    def __init__(
        self,
        where: str | Endpoint,
        *,
        pool: str,
        prefix: str = "daybreak",
        lease_s: float = policy.LEASE_S,
        timeout_s: float = 5.0,
        library: Library | None = None,
        on_call: OnCall | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        self._keys = Keys(prefix=prefix, pool=pool)
        self._lease_s = lease_s
        self._nonce = secrets.token_hex(8)
        self._inbox = self._keys.of("session_inbox", self._nonce)
        self._client = connect(where, timeout_s=timeout_s)
        self._scripts = Scripts(self._client, library or Library(), on_call=on_call, on_change=on_change)
        self._claimer = connect(where, timeout_s=_BLOCK_S + timeout_s)
        self._reader = connect(where, timeout_s=_BLOCK_S + timeout_s)
        self._closed = threading.Event()
        self._read_to = "0-0"
        self._check_at = 0.0
        self._unknown: set[SessionId] = set()
        """Sessions that the inbox has named before the caller asked for them. A session leaves this set when the
        caller asks for it. If the caller never does, the session leaves at the second read of all sessions. It does
        not leave at the first one, because a caller that asks soon after that read must still learn of the audio."""
        self._old_unknown: frozenset[SessionId] = frozenset()

    def claim_sessions(
        self, group: GroupId, *, room: int, wait_s: float, intake: Callable[[], Intake] = take_all
    ) -> Sequence[SessionClaim]:
        """Claim up to ``room`` sessions that no group owns: orphans before new ones, oldest first.

        If the answer to a claim is lost, the group owns sessions that it does not know of, until their leases end.
        """
        deadline = time.monotonic() + wait_s
        while not self._closed.is_set():
            takes = intake()
            call = calls.claim(
                self._keys,
                group,
                nonce=self._nonce,
                lease_s=self._lease_s,
                room=0 if takes is Intake.NONE else room,  # with no room, the script wakes another group
                orphans_only=takes is Intake.ORPHANS,
            )
            draining, items = self._scripts.call(call)
            if items:
                return self._with_audio([calls.claim_without_audio(item) for item in items])
            remaining_s = deadline - time.monotonic()
            if draining:
                self._closed.wait(max(0.0, min(remaining_s, _DRAIN_PAUSE_S)))
                return []
            if remaining_s <= 0 or takes is Intake.NONE:
                return []
            if takes is Intake.ORPHANS:  # the wake-ups of new sessions are for other groups
                self._closed.wait(min(remaining_s, _ORPHANS_PAUSE_S))
                continue
            with translated():
                wakeup = self._keys.single("session_wakeup")
                self._claimer.blpop([wakeup], timeout=max(0.01, min(remaining_s, _BLOCK_S)))
        return []

    def read_audio(self, received: Mapping[SessionLease, int], *, wait_s: float) -> Sequence[SessionNews]:
        """The new audio of these sessions after the given positions. Waits up to ``wait_s`` for new audio.

        Returns sooner, even without news, if the inbox names a session that is not in ``received``.
        """
        deadline = time.monotonic() + wait_s
        positions = {lease.session: position for lease, position in received.items()}
        while True:
            try:
                if self._unknown:  # wait only briefly: the caller will soon ask for these sessions
                    deadline = min(deadline, time.monotonic() + _RETRY_SOON_S)
                named = self._named(0.0 if self._unknown & positions.keys() else deadline)
                gone = named.gone.keys() & positions.keys()
                changed = (named.audio | self._unknown) & positions.keys()
                changed = set(positions) if named.all else changed
                new = named.audio - positions.keys()
                self._unknown = (self._unknown | new) - positions.keys()
                if named.all:
                    self._unknown -= self._old_unknown
                    self._old_unknown = frozenset(self._unknown)
                news = [
                    SessionNews(session=session, stale=True, reason=named.gone[session])
                    for session in sorted(gone)
                ]
                news += self._news_of({session: positions[session] for session in changed - gone})
            except StoreUnavailableError:
                self._check_at = 0.0
                raise
            if news or new or time.monotonic() >= deadline or self._closed.is_set():
                return news

    def renew_sessions(
        self, group: GroupId, leases: Sequence[SessionLease], *, measured: SessionsMeasured
    ) -> Sequence[SessionLease]:
        """Extend the leases, and publish the group's measurements. Returns the stale leases."""
        call = calls.renew(self._keys, group, leases, measured, nonce=self._nonce, lease_s=self._lease_s)
        return calls.lost(self._scripts.call(call, idempotent=True), leases)

    def commit(self, commits: Sequence[SessionCommit]) -> Sequence[SessionLease]:
        """Write the results of the model, in one call. Returns the stale leases."""
        reply = self._scripts.call(calls.commit(self._keys, commits), idempotent=True)
        return calls.lost(reply, [commit.lease for commit in commits])

    def release_sessions(self, leases: Sequence[SessionLease]) -> None:
        """Release sessions, so that another group can claim them at once."""
        if leases:
            self._scripts.call(calls.release(self._keys, leases), idempotent=True)

    def room_elsewhere(self, group: GroupId) -> int:
        """How many sessions the other groups of the pool have room for, according to their last reports."""
        with translated():
            published = self._client.hgetall(self._keys.single("session_groups"))
        others = (codec.measured(stored) for other, stored in published.items() if text(other) != group)
        return sum(measured.room for measured in others if not measured.full)

    def close(self) -> None:
        """Close the connections. A waiting call ends soon."""
        self._closed.set()
        self._client.close()
        self._claimer.close()
        self._reader.close()

    def _named(self, deadline: float) -> _Named:
        """Wait for the inbox until ``deadline``, or until all sessions must be read."""
        now = time.monotonic()
        all_sessions = now >= self._check_at
        if all_sessions:
            self._check_at = now + CHECK_S
        wait_s = min(deadline, self._check_at) - now
        block = None if all_sessions or wait_s <= 0 else max(1, round(min(wait_s, _BLOCK_S) * 1000))
        with translated():
            reply: Any = self._reader.xread(
                {self._inbox: self._read_to}, count=SESSION_INBOX_MAX, block=block
            )
        named = _Named(all=all_sessions)
        for entry, fields in reply[0][1] if reply else ():
            self._read_to = text(entry)
            if b"a" in fields:
                named.audio.add(SessionId(text(fields[b"a"])))
            elif b"x" in fields:
                named.gone[SessionId(text(fields[b"x"]))] = text(fields.get(b"why", b""))
        return named

    def _news_of(self, positions: Mapping[SessionId, int]) -> list[SessionNews]:
        news = []
        for session, found in self._audio_from(positions).items():
            if isinstance(found, Cause):
                news.append(SessionNews(session=session, error=found))
            elif any(found):
                news.append(SessionNews(session=session, audio=found[0], input_ended=found[1]))
        return news

    def _with_audio(self, claims: Sequence[SessionClaim]) -> list[SessionClaim]:
        found = self._audio_from({claim.lease.session: claim.audio_start for claim in claims})
        complete = []
        for claim in claims:
            # More audio may have arrived since the claim. The next call reads it.
            size = (claim.record.received - claim.audio_start) * SAMPLE_BYTES
            audio = found[claim.lease.session]
            complete.append(claim if isinstance(audio, Cause) else replace(claim, audio=audio[0][:size]))
        return complete

    def _audio_from(self, positions: Mapping[SessionId, int]) -> dict[SessionId, tuple[bytes, bool] | Cause]:
        """For each session: its audio after the position, and whether its input has ended.

        If its journal is damaged: the cause.
        """
        if not positions:
            return {}
        with translated():
            pipe = self._client.pipeline(transaction=False)
            for session, position in positions.items():
                pipe.xrange(self._keys.of("session_audio", session), min=f"({position}-1")
            replies = pipe.execute(raise_on_error=False)
        return {
            session: _join(entries, position)
            for (session, position), entries in zip(positions.items(), replies, strict=True)
        }


def _join(entries: Any, position: int) -> tuple[bytes, bool] | Cause:
    if isinstance(entries, Exception):
        error = translate(entries)
        if isinstance(error, StoreUnavailableError):
            raise error
        return Cause(reason="journal_damaged", message=f"The journal of the session is damaged: {error}")
    pieces, ended = [], False
    for entry, fields in entries:
        if b"e" in fields:
            ended = True
            continue
        samples, end = fields[b"a"], int(text(entry).partition("-")[0])
        begin = end - len(samples) // SAMPLE_BYTES
        pieces.append(samples[max(0, position - begin) * SAMPLE_BYTES :])
    return b"".join(pieces), ended
