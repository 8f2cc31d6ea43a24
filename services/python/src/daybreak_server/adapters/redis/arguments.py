"""The arguments of the scripts by name, defined once for Python and Lua.

Redis passes a script one flat list of arguments. Each class here names a run of consecutive arguments: a Python module
of ``adapters.redis`` builds the run, and the script reads it as a table with the same field names::

    Call("renew", keys, Renewal(task=…, token=…, lease_ms=…))     local a = read.renewal(ARGV, 1)  -- a.task, a.token, …

:func:`lua_arguments` generates ``read`` and ``width`` (the number of fields) for the scripts. Arguments arrive in Lua
as text, so a script converts numbers itself. An empty text stands for ``None``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────


class SubmitLimit(NamedTuple):
    """The first argument of ``submit``. A :class:`Submission` for each task follows."""

    max_queued: int


class Submission(NamedTuple):
    """A new task."""

    task: str
    tenant: str
    priority: int
    cost: str
    estimate_s: str
    weight: str
    start_at: str
    start_within: str
    run_within: str
    max_strikes: int
    retention_ms: int
    idempotency_hash: str
    body_hash: str
    replay_of: str
    spec_version: int
    spec: str


class Cancellation(NamedTuple):
    """The arguments of ``cancel``."""

    task: str
    reason: str


class ListPage(NamedTuple):
    """The arguments of ``list``. The wanted states follow; without any, all states are wanted."""

    tenant: str
    after: str
    limit: int
    newest_first: int


class EventsPage(NamedTuple):
    """The arguments of ``events``."""

    task: str
    after: str
    limit: int


class Deletion(NamedTuple):
    """The arguments of ``delete``."""

    task: str


class TickLimit(NamedTuple):
    """The arguments of ``tick``."""

    limit: int
    tenants_max: int
    target_load: float | str


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────


class Terms(NamedTuple):
    """The arguments that all claims of a call have in common. ``claim`` and ``settle`` begin with them.

    The tokens of one call may share a nonce, because they belong to different tasks or to different attempts.
    """

    lease_ms: int
    nonce: str
    spec_version: int


class Claimant(NamedTuple):
    """A group that claims. ``known``: the ids of the tasks that it says it holds, separated by spaces.

    ``claim`` has a claimant for each group. In ``settle``, a claimant follows each :class:`Settlement`.
    """

    group: str
    ranks: int
    draining: int
    known: str


class Settlement(NamedTuple):
    """The end of an attempt. ``outcome`` is ``finished``, ``failed``, ``released`` or ``stopped``.

    ``artifacts`` (as stored) and ``described`` (as events show them) belong to ``finished``; ``code``, ``message`` and
    ``permanent`` to ``failed``; ``reason`` to ``failed`` and ``released``.
    """

    task: str
    token: str
    outcome: str
    artifacts: str = ""
    described: str = ""
    code: str = ""
    message: str = ""
    permanent: int = 0
    reason: str = ""


class Renewal(NamedTuple):
    """The arguments of ``renew``."""

    task: str
    token: str
    lease_ms: int


class Report(NamedTuple):
    """The arguments of ``report``. After them come the fields of the record, each with its value, and then the events.

    ``field_count`` is the number of these fields.
    """

    task: str
    token: str
    lease_ms: int
    checkpoint: str
    step: int
    field_count: int


class ReportedEvent(NamedTuple):
    """An event of a ``report``."""

    type: str
    data: str
    number: int


class Preview(NamedTuple):
    """The arguments of ``preview``."""

    task: str
    token: str
    ttl_ms: int
    value: bytes


# ── groups and the pool ───────────────────────────────────────────────────────────────────────────────────


class GroupAction(NamedTuple):
    """The first argument of ``group``. The arguments of the action follow."""

    action: str


class Registration(NamedTuple):
    """The arguments of ``register``. Pairs of a group field and its value follow."""

    group: str
    ttl_ms: int
    starting: int
    draining: int
    wake_ms: int | str
    wake: str


class GroupName(NamedTuple):
    """The arguments of ``deregister``, ``drain`` and ``undrain``."""

    group: str


class DeadGroup(NamedTuple):
    """The arguments of ``deregister_dead``.

    ``known``: 1 if it is known which sessions the group worked on last. The ids of these sessions follow.
    """

    group: str
    known: int


class Cordon(NamedTuple):
    """The arguments of ``cordon``. The hosts follow. (``uncordon`` has only the hosts.)"""

    ttl_ms: int


class RankFailure(NamedTuple):
    """The arguments of ``report_failure``."""

    ttl_ms: int
    cause: str


class OperatorReport(NamedTuple):
    """The arguments of ``publish_report``.

    ``wake_ms`` and ``wake`` describe the last complete wake; they are empty if there was none. ``waking`` has the
    durations of the phases that the current wake has completed; it is empty if there are none. ``target_load`` is the
    target load that the GeneratorPool sets; it is empty if there is none.
    """

    ttl_ms: int
    report: str
    wake_ms: int | str
    wake: str
    waking: str
    target_load: float | str


class PublishedDemand(NamedTuple):
    """The arguments of ``publish_demand``."""

    gateway: str
    requests: int
    ttl_ms: int
    target_load: float | str


# ── streaming sessions ────────────────────────────────────────────────────────────────────────────────────


class SessionOpening(NamedTuple):
    """The arguments of ``session_open``."""

    session: str
    tenant: str
    source: str
    target: str
    multiplier: int
    options: str
    client: str
    trace: str
    """The trace context, as ``traceparent`` and ``tracestate`` with a space between them; empty if there is none."""
    max_sessions: int
    max_per_tenant: int
    timeout_ms: int
    target_load: float | str


class SessionAudio(NamedTuple):
    """The arguments of ``session_append``. ``at`` is the position of the first of ``samples``."""

    session: str
    at: int
    samples: bytes
    ends: int


class SessionClosing(NamedTuple):
    """The arguments of ``session_close``."""

    session: str
    reason: str
    target_load: float | str


class SessionPage(NamedTuple):
    """The arguments of ``session_list``. An empty ``tenant``: the sessions of all tenants."""

    tenant: str
    limit: int


class SessionWatching(NamedTuple):
    """The arguments of ``session_watch``."""

    session: str
    tenant: str


class SessionClaiming(NamedTuple):
    """The arguments of ``session_claim``. ``orphans_only``: leave new sessions to other groups."""

    group: str
    nonce: str
    lease_ms: int
    room: int
    orphans_only: int


class SessionRenewal(NamedTuple):
    """The arguments of ``session_renew``. Pairs of a session and a token follow."""

    group: str
    nonce: str
    lease_ms: int
    lag_ms: int
    full: int
    multiplier: int
    room: int
    prefill: int
    decode: int
    rates: str
    batches: str
    """JSON without spaces."""


class SessionWrite(NamedTuple):
    """One session's part of ``session_commit``. Its events come after it, each as a :class:`SessionDraft`.

    ``events`` is the number of these events. ``turn`` is the newest turn as the journal keeps it, and ``turn_start`` is
    where it begins. ``consumed`` is where the turn ends; it is empty until the turn is complete.
    """

    session: str
    token: str
    number: int
    turn: str
    turn_start: int | str
    consumed: int | str
    keep_from: int | str
    multiplier: int | str
    ends: str
    error: str
    events: int


class SessionDraft(NamedTuple):
    """An event of a ``session_commit``. ``text`` is appended to the session's text. If the event ends a segment,
    ``segment`` is the number of the next segment, and ``segment_start`` the position in the audio where it begins."""

    type: str
    data: str
    text: str = ""
    segment: int | str = ""
    segment_start: int | str = ""


LAYOUTS: tuple[type[NamedTuple], ...] = (
    SubmitLimit,
    Submission,
    Cancellation,
    ListPage,
    EventsPage,
    Deletion,
    TickLimit,
    Terms,
    Claimant,
    Settlement,
    Renewal,
    Report,
    ReportedEvent,
    Preview,
    GroupAction,
    Registration,
    GroupName,
    DeadGroup,
    Cordon,
    RankFailure,
    OperatorReport,
    PublishedDemand,
    SessionOpening,
    SessionAudio,
    SessionClosing,
    SessionPage,
    SessionWatching,
    SessionClaiming,
    SessionRenewal,
    SessionWrite,
    SessionDraft,
)


def lua_arguments() -> str:
    """Lua definitions of ``read.<layout>(ARGV, at)``, a table of the fields from ``at`` on, and ``width.<layout>``."""
    lines = ["local read, width = {}, {}"]
    for layout in LAYOUTS:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", layout.__name__).lower()
        fields = ", ".join(f"{field} = ARGV[at + {place}]" for place, field in enumerate(layout._fields))
        lines.append(f"width.{name} = {len(layout._fields)}")
        lines.append(f"function read.{name}(ARGV, at) return {{ {fields} }} end")
    return "\n".join(lines) + "\n"
