"""The threads of a sessions group that call the store.

* The *claimer* claims sessions while there is room and the group does not drain. It waits on the wake-up list.
* The *reader* waits for audio of all sessions of the group, on one connection.
* The *keeper* renews the leases each second while the work advances, and publishes the measurements of the group.
* The *writer* sends commits. Each call sends all commits that have collected since the last one, so a slow store leads
  to larger calls and never delays the model. The writer also releases sessions, after it has written their commits.

The threads put new sessions, audio and lost leases into a :class:`Mailbox`, which the work thread reads. While the
store is down, each thread retries until the group ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SessionClaim,
    SessionCommit,
    SessionLease,
    SessionNews,
    SessionsMeasured,
)
from daybreak_server.ports.sessions import SessionWork
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger(__name__)
_WAIT_S = 2.0
"""How long one blocking call waits."""
_RETRY_S = 0.25
READ_S = 0.5
"""How long the reader waits before it looks for new sessions. Audio of sessions that it knows wakes it at
once."""
RENEW_S = 1.0
BEHIND_MAX = 4_000
"""Commits that may wait for the store before the model pauses."""
_CALL_MAX = 200
"""Commits in one call. More would block the server for too long."""


class Mailbox:
    """Passes sessions, audio and lost leases to the work thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: list[SessionClaim] = []
        self._news: list[SessionNews] = []

    def put(self, *, claims: Sequence[SessionClaim] = (), news: Sequence[SessionNews] = ()) -> None:
        """Add an item, and wake the work thread."""
        with self._changed:
            self._claims += claims
            self._news += news
            self._changed.notify()

    def lost(self, leases: Sequence[SessionLease]) -> None:
        """Report that these sessions belong to other groups."""
        if leases:
            self.put(news=[SessionNews(session=lease.session, stale=True) for lease in leases])

    def take(self, *, wait_s: float) -> tuple[list[SessionClaim], list[SessionNews]]:
        """All items that have arrived. Waits up to ``wait_s`` for the first."""
        with self._changed:
            if not self._claims and not self._news and wait_s > 0:
                self._changed.wait(wait_s)
            claims, news, self._claims, self._news = self._claims, self._news, [], []
            return claims, news

    def wake(self) -> None:
        """Wake the work thread."""
        with self._changed:
            self._changed.notify()


@dataclass(slots=True)
class Shared:
    """The state that the work thread publishes for the other threads. Each field is replaced as a whole, so
    reads need no lock."""

    room: tuple[int, int] = (0, 0)
    """How many sessions may be claimed (0 while the group drains), and how many claims the work thread had
    received when it set this number."""
    positions: dict[SessionLease, int] = field(default_factory=dict)
    """The sessions whose audio has not ended, and the position up to which the work thread has received
    it."""
    leases: list[SessionLease] = field(default_factory=list)
    measured: SessionsMeasured = field(default_factory=SessionsMeasured)


class StoreThreads:
    """See the module."""

    def __init__(
        self, work: SessionWork, group: GroupId, *, mailbox: Mailbox, stalled: Callable[[], str | None]
    ) -> None:
        self.shared = Shared()
        self._work = work
        self._group = group
        self._mailbox = mailbox
        self._stalled = stalled
        self._ended = threading.Event()
        self._positions_changed = threading.Event()
        self._room_changed = threading.Event()
        self._writing = threading.Condition()
        self._commits: list[SessionCommit] = []
        self._releases: list[SessionLease] = []
        self._unwritten = 0
        self._claimed = 0
        self._read_to: dict[SessionLease, int] = {}
        """The position up to which the reader has read. The work thread may not have received all of this
        audio yet."""
        self._read_all: set[SessionLease] = set()
        loops = {"claimer": self._claim, "reader": self._read, "keeper": self._keep, "writer": self._write}
        self._threads = [
            threading.Thread(target=inherited(self._repeat(loop)), name=f"session-{name}", daemon=True)
            for name, loop in loops.items()
        ]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them. Commits that are not written by then are lost, and the next owner computes them again."""
        self._ended.set()
        for event in (self._room_changed, self._positions_changed):
            event.set()
        with self._writing:
            self._writing.notify_all()
        self._work.close()
        for thread in self._threads:
            thread.join(timeout=_WAIT_S)

    def share(
        self,
        *,
        room: int,
        taken: int,
        positions: dict[SessionLease, int],
        leases: list[SessionLease],
        measured: SessionsMeasured,
    ) -> None:
        """Publish the group's present sessions. ``taken`` is the number of claims that the work thread has
        received in all."""
        shared = self.shared
        shared.room, shared.positions, shared.leases = (room, taken), positions, leases
        shared.measured = measured
        if room:
            self._room_changed.set()
        if positions:
            self._positions_changed.set()

    def commit(self, commits: Sequence[SessionCommit]) -> None:
        """Queue these commits for the writer, after all earlier ones."""
        with self._writing:
            self._commits += commits
            self._unwritten += len(commits)
            self._writing.notify_all()

    def release(self, leases: Sequence[SessionLease]) -> None:
        """Release sessions once all of their commits are written."""
        with self._writing:
            self._releases += leases
            self._unwritten += len(leases)
            self._writing.notify_all()

    @property
    def behind(self) -> bool:
        """Whether so many commits wait for the store that the model must pause."""
        return self._unwritten > BEHIND_MAX

    def flush(self, *, timeout_s: float) -> bool:
        """Wait until all commits are written, and return whether they are."""
        with self._writing:
            return self._writing.wait_for(lambda: not self._unwritten, timeout_s)

    # ── the loops ────────────────────────────────────────────────────────────────────────────────────────

    def _repeat(self, loop: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            failing = False
            while not self._ended.is_set():
                try:
                    loop()
                    failing = False
                except StoreError as exc:
                    if not failing and not self._ended.is_set():
                        _log.warning("the store of sessions cannot be used; retrying: %s", exc)
                    failing = True
                    self._ended.wait(_RETRY_S)
                except Exception:
                    if self._ended.is_set():
                        return
                    _log.exception("a thread of the sessions group has failed; repeating")
                    self._ended.wait(_RETRY_S)

        return run

    def _claim(self) -> None:
        self._room_changed.clear()
        room, taken = self.shared.room
        room -= self._claimed - taken
        if room <= 0:
            self._room_changed.wait(_WAIT_S)
            return
        claims = self._work.claim_sessions(
            self._group, room=room, wait_s=_WAIT_S, wanted=lambda: self.shared.room[0] > 0
        )
        self._claimed += len(claims)
        if claims:
            self._mailbox.put(claims=claims)

    def _read(self) -> None:
        self._positions_changed.clear()
        positions = self._to_read()
        if not positions:
            self._positions_changed.wait(_WAIT_S)
            return
        news = self._work.read_audio(positions, wait_s=min(_WAIT_S, READ_S))
        leases = {lease.session: lease for lease in positions}
        for item in news:
            lease = leases[item.session]
            self._read_to[lease] = positions[lease] + len(item.audio) // SAMPLE_BYTES
            if item.stale or item.input_ended:
                self._read_all.add(lease)
        if news:
            self._mailbox.put(news=news)

    def _to_read(self) -> dict[SessionLease, int]:
        received = self.shared.positions
        self._read_all &= received.keys()
        self._read_to = {
            lease: max(position, self._read_to.get(lease, 0))
            for lease, position in received.items()
            if lease not in self._read_all
        }
        return self._read_to

    def _keep(self) -> None:
        if self._stalled() is None:
            lost = self._work.renew_sessions(self._group, self.shared.leases, measured=self.shared.measured)
            self._mailbox.lost(lost)
        self._ended.wait(RENEW_S)

    def _write(self) -> None:
        with self._writing:
            self._writing.wait_for(
                lambda: self._commits or self._releases or self._ended.is_set(), timeout=_WAIT_S
            )
            commits, releases = self._commits[:_CALL_MAX], []
            if len(commits) == len(self._commits):
                releases = list(self._releases)
        if commits:
            self._mailbox.lost(self._work.commit(commits))
            self._written(len(commits), 0)
        if releases:
            self._work.release_sessions(releases)
            self._written(0, len(releases))

    def _written(self, commits: int, releases: int) -> None:
        with self._writing:
            del self._commits[:commits]
            del self._releases[:releases]
            self._unwritten -= commits + releases
            self._writing.notify_all()
