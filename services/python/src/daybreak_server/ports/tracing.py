"""How the server records the traces of submits, of attempts, and of requests to serving pools and models.

``ports/session_tracing.py`` does the same for streaming sessions.

Without tracing, :data:`NO_TRACING` takes the place of a tracer: a caller's trace context is stored and returned as it
is, and nothing is recorded. No method here raises. Only ``flush`` and ``close`` block; they are called when the work
has ended. So tracing can neither fail nor delay any work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import Claim, Outcome, State, TaskRecord
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.ports.session_tracing import NoSessionTracing, SessionTracing

CLOSE_S = 1.0
"""When a process ends, it waits at most this long for its traces to be sent."""


class SubmitTrace(Protocol):
    """The trace of one submit, from the request to the answer of the store."""

    @property
    def context(self) -> TraceContext | None:
        """The context that the task carries; ``None`` if the task belongs to no trace."""

    def stored(self, record: TaskRecord, *, repeated: bool) -> None:
        """The store has the task. ``repeated``: an earlier submit with the same idempotency key had stored it."""

    def refused(self, pool: str, *, error: str) -> None:
        """The store did not take the task. ``error``: the code of the error."""


class AttemptTrace(Protocol):
    """The trace of one attempt, from its claim to its settlement. Methods may be called from any thread."""

    def phase(self, phase: str) -> None:
        """The work enters a phase, which lasts until the next phase or the end."""

    def step(self, phase: str, step: int, steps: int) -> None:
        """A step of ``phase`` has ended. The step began when the previous step ended."""

    def ended(self, outcome: Outcome | None) -> None:
        """The attempt has ended. ``None``: its lease was lost. Only the first call has an effect."""

    def settled(self, state: State | None, *, began_ns: int) -> None:
        """The attempt is settled. ``state``: the task's state, or ``None`` if the settlement was stale or failed.

        ``began_ns``: when the call began, in nanoseconds since 1970.
        """


class RequestTrace(Protocol):
    """The trace of one request to a serving pool or a model, from its arrival to the end of its answer.

    For a model, *group* stands for the worker.
    """

    @property
    def context(self) -> TraceContext | None:
        """The context that the client gets back; ``None`` if the request belongs to no trace."""

    def waited(self, *, began_ns: int, granted: bool) -> None:
        """The request has waited in line since ``began_ns`` (nanoseconds since 1970). ``granted``: it got a group."""

    def sent(self, group: str, endpoint: str) -> TraceContext | None:
        """The request is sent to a group. Returns the context that the group gets."""

    def not_answered(self, reason: str) -> None:
        """The group gave no answer, for one of the reasons of ``daybreak_router_retries_total``."""

    def first_byte(self, status: int) -> None:
        """The answer of the group has begun."""

    def ended(self, outcome: str, *, status: int | None = None) -> None:
        """The request has ended. ``status``: the HTTP status of the answer, if the gateway itself answers."""


class Tracing(SessionTracing, Protocol):
    """Records traces and exports them in the background."""

    def submit(self, caller: TraceContext | None) -> SubmitTrace:
        """Begin the trace of a submit. ``caller``: the context of the request. The trace keeps the caller's
        decision whether to sample."""

    def attempt(
        self,
        claim: Claim,
        group: GroupRecord,
        *,
        claim_sent_ns: int,
        ready_ns: int,
        wake: Mapping[str, float],
    ) -> AttemptTrace:
        """Begin the trace of an attempt.

        ``claim_sent_ns``: when the claim was sent. ``ready_ns``: when the group became ready. Both are nanoseconds
        since 1970. ``wake``: how many seconds each phase of the group's wake took.
        """

    def request(
        self,
        caller: TraceContext | None,
        *,
        method: str,
        route: str,
        scheme: str,
        path: str,
        pool: str,
        tenant: str,
    ) -> RequestTrace:
        """Begin the trace of a request to a serving pool or a model. ``route``: the path of the route. ``path``: the
        path of the request, without its query."""

    def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Export what has been recorded; wait at most ``timeout_s``."""

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Export what has been recorded and stop; wait at most ``timeout_s``."""


class NoAttemptTrace:
    """Records nothing: tracing is off, the task belongs to no trace, or its trace is not sampled."""

    def phase(self, phase: str) -> None:
        """Do nothing."""

    def step(self, phase: str, step: int, steps: int) -> None:
        """Do nothing."""

    def ended(self, outcome: Outcome | None) -> None:
        """Do nothing."""

    def settled(self, state: State | None, *, began_ns: int) -> None:
        """Do nothing."""


class UnrecordedSubmit:
    """A submit that is not recorded. The task still carries the caller's context."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context

    def stored(self, record: TaskRecord, *, repeated: bool) -> None:
        """Do nothing."""

    def refused(self, pool: str, *, error: str) -> None:
        """Do nothing."""


class UnrecordedRequest:
    """A request that is not recorded. Its context is passed on."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context

    def waited(self, *, began_ns: int, granted: bool) -> None:
        """Do nothing."""

    def sent(self, group: str, endpoint: str) -> TraceContext | None:
        """The caller's context."""
        return self.context

    def not_answered(self, reason: str) -> None:
        """Do nothing."""

    def first_byte(self, status: int) -> None:
        """Do nothing."""

    def ended(self, outcome: str, *, status: int | None = None) -> None:
        """Do nothing."""


UNRECORDED_SUBMIT = UnrecordedSubmit(None)
"""Has no context. Most submits share this object, because a new one for each would cost more."""


class NoTracing(NoSessionTracing):
    """Records nothing. A caller's context is passed on as it is."""

    def submit(self, caller: TraceContext | None) -> SubmitTrace:
        """Pass on the caller's context."""
        return UNRECORDED_SUBMIT if caller is None else UnrecordedSubmit(caller)

    def attempt(
        self,
        claim: Claim,
        group: GroupRecord,
        *,
        claim_sent_ns: int,
        ready_ns: int,
        wake: Mapping[str, float],
    ) -> AttemptTrace:
        """Record nothing."""
        return NO_ATTEMPT_TRACE

    def request(
        self,
        caller: TraceContext | None,
        *,
        method: str,
        route: str,
        scheme: str,
        path: str,
        pool: str,
        tenant: str,
    ) -> RequestTrace:
        """Pass on the caller's context."""
        return UnrecordedRequest(caller)

    def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Do nothing."""

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Do nothing."""


NO_ATTEMPT_TRACE = NoAttemptTrace()
NO_TRACING = NoTracing()
