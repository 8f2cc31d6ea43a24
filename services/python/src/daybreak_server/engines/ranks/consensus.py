"""Decides what all ranks do next, from every rank's report at a point and the store's control bits.

At each point of agreement a rank reports that it stepped, is done, or failed. The leader alone decides
(:func:`decide`), so every rank does the same at the same point, and no rank enters a collective that another has left.
The decision is the first of these that applies:

1. ``BREAK``, if the reports differ in point, status or kind of error, or in whether the error is permanent. Some ranks
   may then have begun collectives that the others will never join. Every rank ends, and the whole group restarts.
   ``BREAK`` is also the decision after an error that leaves the process itself unusable (``UNRECOVERABLE``), such as a
   lost peer or a failed device.
2. ``ABANDON``, if the store says that the lease is stale, because another attempt has the task. The leader writes
   nothing more, and removes this attempt's files.
3. ``FAIL``, if every rank failed in the same way. The group stays warm. The task gets a strike; a permanent error ends
   it.
4. ``STOP``, if the task was cancelled or is past its deadline, even if every rank is done.
5. ``FINISH``, if every rank is done.
6. ``RELEASE``, if the group must leave, or has been draining for ``drain_s``.
7. ``CONTINUE`` with the next step, in all other cases.

In a serving pool, the leader decides in the same way after each part of an answer. A request has no lease and no
strikes. ``STOP`` then means that the request has been stopped, for example because its client has gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.tasks import Control
from daybreak_server.domain.text import short_name, storable
from daybreak_server.engines.common.error_causes import OUT_OF_MEMORY_CODE, describe, is_out_of_memory
from daybreak_server.workloads.base import PermanentError, WorkloadError

_PARTS_MAX = 20
"""Only this many errors of an exception group are examined."""
_PARTS_SHOWN = 5
# After these errors the process can do no more work: a peer has died, or every later call to the device fails.
_UNRECOVERABLE = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError", "AcceleratorError"})


class Status(StrEnum):
    """The status of one rank at a point of agreement."""

    STEPPED = "stepped"
    DONE = "done"
    FAILED = "failed"
    UNRECOVERABLE = "unrecoverable"
    """Failed, and this process can do no more work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """One rank's report at point number ``point`` of an attempt."""

    point: int
    status: Status
    permanent: bool = False
    kind: str = ""
    """The class of the error; the same on all ranks if they failed together."""
    code: str = ""
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether the rank failed."""
        return self.status in (Status.FAILED, Status.UNRECOVERABLE)


class GroupDecision(StrEnum):
    """What every rank does next. All but ``CONTINUE`` end the attempt. Only ``BREAK`` makes the group unusable."""

    CONTINUE = "continue"
    FINISH = "finish"
    STOP = "stop"
    """The task was cancelled or is past its deadline."""
    RELEASE = "release"
    ABANDON = "abandon"
    """Another attempt has the task."""
    FAIL = "fail"
    BREAK = "break"
    """The ranks disagree in point, status or error, or a rank can do no more work: the whole group restarts."""


def report_of(error: BaseException, *, point: int) -> RankReport:
    """Return the report of an error of any class, even if the methods of that class raise.

    In an exception group, a permanent error determines the report, because each further attempt would fail too.
    """
    parts = list(_parts(error))
    names = {base.__name__ for part in parts for base in type(part).__mro__}
    permanent = next((part for part in parts if isinstance(part, PermanentError)), None)
    decisive = permanent or next((part for part in parts if isinstance(part, WorkloadError)), error)
    return RankReport(
        point=point,
        status=Status.UNRECOVERABLE if names & _UNRECOVERABLE else Status.FAILED,
        permanent=permanent is not None,
        kind=short_name(type(error).__name__),
        code=_code(decisive),
        message=_message(error, parts),
    )


def _message(error: BaseException, parts: Sequence[BaseException]) -> str:
    if isinstance(error, BaseExceptionGroup):
        listed = "; ".join(describe(part) for part in parts[:_PARTS_SHOWN])
        return storable(f"{describe(error)}: {listed}")
    if isinstance(error, WorkloadError):
        return storable(error) or type(error).__name__
    return describe(error)


def _code(error: BaseException) -> str:
    """Return the task's ``error.code``. A workload may define the error's class, so reading ``code`` may raise."""
    try:
        code = error.code if isinstance(error, WorkloadError) else ""
    except Exception:
        code = ""
    if code:
        return short_name(code)
    return OUT_OF_MEMORY_CODE if is_out_of_memory(error) else WorkloadError.code


def _parts(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in an exception group, or the error itself if it is not a group."""
    waiting, count = [error], 0
    while waiting and count < _PARTS_MAX:
        found = waiting.pop()
        if isinstance(found, BaseExceptionGroup):
            waiting += reversed(found.exceptions[:_PARTS_MAX])
        else:
            count += 1
            yield found


def decide(reports: Sequence[RankReport], control: Control, *, release: bool = False) -> GroupDecision:
    """Return what all ranks do, from one report of each rank. ``release``: the task must be released now."""
    first = reports[0]
    same = all(
        (report.point, report.status, report.kind, report.permanent)
        == (first.point, first.status, first.kind, first.permanent)
        for report in reports
    )
    if not same or first.status is Status.UNRECOVERABLE:
        return GroupDecision.BREAK
    if control & Control.STALE:
        return GroupDecision.ABANDON
    if first.status is Status.FAILED:
        return GroupDecision.FAIL
    if control & (Control.CANCEL | Control.EXPIRE):
        return GroupDecision.STOP
    if first.status is Status.DONE:
        return GroupDecision.FINISH
    return GroupDecision.RELEASE if release else GroupDecision.CONTINUE


def worst(reports: Sequence[RankReport]) -> RankReport | None:
    """Return the report that explains best why an attempt failed, or ``None`` if no rank failed.

    A permanent error comes first, then an error after which the rank's process can still work, then any other error.
    """
    failed = [report for report in reports if report.failed]
    # An error about a dead peer is only a consequence of the error that ended the peer.
    failed.sort(key=lambda report: (not report.permanent, report.status is Status.UNRECOVERABLE))
    return failed[0] if failed else None
