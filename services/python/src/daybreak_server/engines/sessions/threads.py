"""The threads of a sessions group that call the store.

* The *claimer* claims sessions while there is room. If the group lags too far for new sessions, the claimer claims
  only orphans. If the group drains, it claims none. While no session waits for a group, the claimer blocks on the
  wake-up list.
* The *reader* waits for audio of all sessions of the group, on one connection.
* The *renewer* renews the leases each second while the work advances, and publishes the measurements of the group.
* The *writer* sends commits. Each call sends all commits that wait, but at most ``_CALL_MAX``. So a slow store leads
  to larger calls and does not delay the model, unless more than ``BEHIND_MAX`` commits wait. The writer also releases
  sessions, after it has written their commits.

The threads put new sessions, audio and lost leases into a :class:`Mailbox`, which the work thread reads. While the
store is down, each thread retries until the group ends, with growing pauses. A commit that the store refuses for good
is not repeated: its session fails with the error ``store_refused``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    Intake,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionLease,
    SessionNews,
    SessionsMeasured,
)
from daybreak_server.ports.sessions import SessionWork
from daybreak_server.ports.store_errors import StoreError, StoreFullError, StoreUnavailableError

_log = logging.getLogger(__name__)
_WAIT_S = 2.0
"""How long one blocking call waits."""
_RETRY_S = (0.25, 0.5, 1.0)
"""The pauses while the store is down. The last one is far shorter than a lease."""
READ_S = 0.5
"""How long the reader waits for audio before it looks for new sessions. Audio of a session that the reader knows wakes
the reader at once."""
RENEW_S = 1.0
BEHIND_MAX = 4_000
"""How many commits may wait for the store before the model pauses."""
_CALL_MAX = 200
"""The maximum number of commits in one call. More would block Redis for too long."""


class Mailbox:
    """Passes sessions, audio and lost leases to the work thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: list[SessionClaim] = []
        self._news: list[SessionNews] = []

    def put(self, *, claims: Sequence[SessionClaim] = (), news: Sequence[SessionNews] = ()) -> None:
        """Add claims and news, and wake the work thread."""
        with self._changed:
            self._claims += claims
            self._news += news
            self._changed.notify()

    def lost(self, leases: Sequence[SessionLease]) -> None:
        """Report that these leases are stale: the group no longer owns the sessions, or they have ended."""
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
    """How many further sessions the group has memory for, and how many claims the work thread had received when
    it set this number."""
    intake: Intake = Intake.NONE
    positions: dict[SessionLease, int] = field(default_factory=dict)
    """The sessions whose audio has not ended. For each, the position up to which the work thread has received the
    audio."""
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
        self._claims_ended = threading.Event()
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
        loops = {"reader": self._read, "renewer": self._renew, "writer": self._write}
        self._claimer = self._thread("claimer", self._claim, until=self._claims_ended)
        self._threads = [self._thread(name, loop, until=self._ended) for name, loop in loops.items()]
        self._threads.append(self._claimer)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def end_claims(self) -> list[SessionClaim]:
        """Claim nothing more. Returns the claims that the work thread has not taken, so that it can release them."""
        self._claims_ended.set()
        self._room_changed.set()
        if self._claimer.is_alive():
            self._claimer.join(timeout=2 * _WAIT_S)
        return self._mailbox.take(wait_s=0)[0]

    def stop(self) -> None:
        """End the threads. Commits that are not written yet are lost, and the next owners compute them again."""
        self._ended.set()
        self._claims_ended.set()
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
        intake: Intake,
        taken: int,
        positions: dict[SessionLease, int],
        leases: list[SessionLease],
        measured: SessionsMeasured,
    ) -> None:
        """Publish the group's present sessions. ``taken`` is the number of claims that the work thread has
        received in all."""
        shared = self.shared
        shared.room, shared.positions, shared.leases = (room, taken), positions, leases
        shared.intake, shared.measured = intake, measured
        if room and intake is not Intake.NONE:
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
        """Wait until the writer has sent all commits and releases. Returns ``False`` if it needs more than
        ``timeout_s``."""
        with self._writing:
            return self._writing.wait_for(lambda: not self._unwritten, timeout_s)

    # ── the loops ────────────────────────────────────────────────────────────────────────────────────────

    def _thread(self, name: str, loop: Callable[[], None], *, until: threading.Event) -> threading.Thread:
        repeated = inherited(self._repeat(loop, until))
        return threading.Thread(target=repeated, name=f"session-{name}", daemon=True)

    def _repeat(self, loop: Callable[[], None], until: threading.Event) -> Callable[[], None]:
        def run() -> None:
            failures = 0
            while not until.is_set():
                try:
                    loop()
                    failures = 0
                    continue
                except StoreError as exc:
                    if not failures and not until.is_set():
                        _log.warning("the store of sessions cannot be used; retrying: %s", exc)
                except Exception:
                    if until.is_set():
                        return
                    _log.exception("a thread of the sessions group has failed; repeating")
                until.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

        return run

    def _claim(self) -> None:
        self._room_changed.clear()
        room, taken = self.shared.room
        room -= self._claimed - taken
        if room <= 0 or self.shared.intake is Intake.NONE:
            self._room_changed.wait(_WAIT_S)
            return
        claims = self._work.claim_sessions(
            self._group, room=room, wait_s=_WAIT_S, intake=lambda: self.shared.intake
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

    def _renew(self) -> None:
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
            self._mailbox.lost(self._committed(commits))
            self._written(len(commits), 0)
        if releases:
            self._work.release_sessions(releases)
            self._written(0, len(releases))

    def _committed(self, commits: Sequence[SessionCommit]) -> list[SessionLease]:
        """Write commits. Returns the leases of sessions that the group no longer has."""
        try:
            return list(self._work.commit(commits))
        except (StoreUnavailableError, StoreFullError):
            raise
        except StoreError as exc:
            if len(commits) == 1:
                self._end_refused(commits[0], exc)
                return [commits[0].lease]
            _log.warning("the store refuses %d commits; writing each alone: %s", len(commits), exc)
        lost: list[SessionLease] = []
        for commit in commits:
            if commit.lease not in lost:
                lost += self._committed([commit])
        return lost

    def _end_refused(self, commit: SessionCommit, error: StoreError) -> None:
        """End a session because the store refuses what its group has computed. Repeating the commit would not help."""
        _log.error("session %s ends, because the store refuses its text: %s", commit.lease.session, error)
        cause = Cause(reason="store_refused", message=f"The text cannot be stored: {error}")
        end = SessionCommit(lease=commit.lease, number=commit.number, end=SessionEnd.FAILED, error=cause)
        try:
            self._work.commit([end])
        except (StoreUnavailableError, StoreFullError):
            raise
        except StoreError:
            _log.exception("session %s cannot even be ended; its lease will lapse", commit.lease.session)

    def _written(self, commits: int, releases: int) -> None:
        with self._writing:
            del self._commits[:commits]
            del self._releases[:releases]
            self._unwritten -= commits + releases
            self._writing.notify_all()
