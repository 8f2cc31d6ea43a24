"""How the writer of a group handles a store that refuses commits, for a while or permanently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from daybreak_server.domain.ids import AttemptToken, GroupId
from daybreak_server.domain.sessions import (
    Intake,
    NewSession,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionId,
    SessionLease,
    SessionNews,
    SessionRecord,
    SessionsMeasured,
    SessionState,
)
from daybreak_server.engines.sessions.threads import Mailbox, StoreThreads
from daybreak_server.ports.store_errors import StoreError, StoreFullError, StoreUnavailableError

CLAIM = SessionClaim(
    lease=SessionLease(session=SessionId("late"), token=AttemptToken("1.n")),
    record=SessionRecord(
        session=NewSession(id=SessionId("late"), pool="p", tenant="t", source="en", target="de"),
        state=SessionState.ACTIVE,
    ),
    turns=(),
    audio_start=0,
    audio=b"",
)


class Refusing:
    """A store whose commits fail as a test wants. It answers a claim only after the test has set ``answer``."""

    def __init__(self) -> None:
        self.claiming, self.answer = threading.Event(), threading.Event()
        self.calls: list[Sequence[SessionCommit]] = []
        self.kept: list[tuple[str, int, SessionEnd | None]] = []
        self.fail: Callable[[Sequence[SessionCommit]], None] = lambda commits: None

    def commit(self, commits: Sequence[SessionCommit]) -> Sequence[SessionLease]:
        self.calls.append(commits)
        self.fail(commits)
        self.kept += [(commit.lease.session, commit.number, commit.end) for commit in commits]
        return []

    def renew_sessions(self, *_args: object, **_fields: object) -> Sequence[SessionLease]:
        return []

    def claim_sessions(self, *_args: object, **_fields: object) -> Sequence[SessionClaim]:
        self.claiming.set()
        self.answer.wait(30)
        return [CLAIM]

    def close(self) -> None: ...


@pytest.fixture
def store() -> Refusing:
    return Refusing()


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def threads(store: Refusing, mailbox: Mailbox) -> Iterator[StoreThreads]:
    made = StoreThreads(store, GroupId("g"), mailbox=mailbox, stalled=lambda: None)  # type: ignore[arg-type]
    yield made
    made.stop()


def commit(session: str, number: int) -> SessionCommit:
    return SessionCommit(
        lease=SessionLease(session=SessionId(session), token=AttemptToken("1.n")), number=number
    )


def test_a_commit_that_is_refused_for_good_ends_its_session_and_no_other(
    store: Refusing, mailbox: Mailbox, threads: StoreThreads
) -> None:
    def fail(commits: Sequence[SessionCommit]) -> None:
        if any(written.lease.session == "b" and written.end is None for written in commits):
            raise StoreError("Redis answered with an error: ERR no such thing")

    store.fail = fail
    threads.commit([commit("a", 1), commit("b", 1), commit("b", 2), commit("c", 1)])
    threads.start()
    assert threads.flush(timeout_s=30)
    assert store.kept == [("a", 1, None), ("b", 1, SessionEnd.FAILED), ("c", 1, None)]
    (ended,) = [written for call in store.calls for written in call if written.end is not None]
    assert ended.error is not None
    assert (ended.error.reason, "no such thing" in ended.error.message) == ("store_refused", True)
    _, news = mailbox.take(wait_s=5)
    assert news == [SessionNews(session=SessionId("b"), stale=True)]


def test_a_session_that_cannot_even_be_ended_is_forgotten(
    store: Refusing, mailbox: Mailbox, threads: StoreThreads
) -> None:
    def fail(commits: Sequence[SessionCommit]) -> None:
        if any(written.lease.session == "b" for written in commits):
            raise StoreError("no")

    store.fail = fail
    threads.commit([commit("b", 1), commit("a", 1)])
    threads.start()
    assert threads.flush(timeout_s=30)
    assert store.kept == [("a", 1, None)]
    assert [item.session for item in mailbox.take(wait_s=5)[1]] == ["b"]


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StoreFullError("no memory")])
def test_what_passes_is_repeated_as_it_was(
    store: Refusing, mailbox: Mailbox, threads: StoreThreads, error: StoreError
) -> None:
    """After a temporary error, the writer sends the same commits again until the store accepts them."""

    def fail(commits: Sequence[SessionCommit]) -> None:
        if len(store.calls) <= 2:
            raise error

    store.fail = fail
    threads.commit([commit("a", 1), commit("b", 1)])
    threads.start()
    assert threads.flush(timeout_s=30)
    assert store.kept == [("a", 1, None), ("b", 1, None)]
    assert len(store.calls) == 3
    assert mailbox.take(wait_s=0) == ([], [])


def test_a_claim_that_is_under_way_when_the_group_leaves_is_given_back(
    store: Refusing, threads: StoreThreads
) -> None:
    """If the group kept the claim, the session would wait until the group is deregistered or the lease ends."""
    threads.start()
    measured = SessionsMeasured()
    threads.share(room=1, intake=Intake.ALL, taken=0, positions={}, leases=[], measured=measured)
    assert store.claiming.wait(30)
    threading.Timer(0.1, store.answer.set).start()
    assert threads.end_claims() == [CLAIM]
