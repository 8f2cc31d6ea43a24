"""What all ranks do next: decided by the leader, from what every rank reports at a point. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.tasks import Control
from daybreak_server.domain.text import short_name, storable
from daybreak_server.engines.rank.causes import OUT_OF_MEMORY_CODE, described, is_out_of_memory
from daybreak_server.workloads.base import PermanentError, WorkloadError

_PARTS_MAX = 20
"""Errors of an exception group that are looked at."""
_PARTS_SHOWN = 5
# After these the process is of no use: a dead peer, or a device in which every later call fails.
_UNRECOVERABLE = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError", "AcceleratorError"})


class Status(StrEnum):
    """Where one rank is when it comes to a point of agreement."""

    STEPPED = "stepped"
    DONE = "done"
    FAILED = "failed"
    UNRECOVERABLE = "poisoned"
    """Failed in a way that this process cannot go on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one rank says at point number ``point`` of an attempt."""

    point: int
    status: Status
    permanent: bool = False
    kind: str = ""
    """The class of the error: the same on all ranks when they failed together."""
    code: str = ""
    message: str = ""

    @property
    def failed(self) -> bool:
        """Whether it tells of an error."""
        return self.status in (Status.FAILED, Status.UNRECOVERABLE)


class Verdict(StrEnum):
    """What every rank does now. All but ``GO_ON`` end the attempt; all but ``BREAK`` leave the group warm."""

    GO_ON = "go_on"
    FINISH = "finish"
    STOP = "stop"
    """Cancelled or past its deadline."""
    RELEASE = "release"
    ABANDON = "abandon"
    """The task is not ours any more."""
    FAIL = "fail"
    BREAK = "break"
    """The ranks are not at the same place: the whole group restarts."""


def report_of(error: BaseException, *, point: int) -> Report:
    """An error as a rank reports it, whatever it is and however it behaves. Of several (an exception group) a permanent
    one decides: the task cannot succeed while that part of it fails."""
    parts = list(_parts(error))
    names = {base.__name__ for part in parts for base in type(part).__mro__}
    permanent = next((part for part in parts if isinstance(part, PermanentError)), None)
    told = permanent or next((part for part in parts if isinstance(part, WorkloadError)), error)
    return Report(
        point=point,
        status=Status.UNRECOVERABLE if names & _UNRECOVERABLE else Status.FAILED,
        permanent=permanent is not None,
        kind=short_name(type(error).__name__),
        code=_code(told),
        message=_message(error, parts),
    )


def _message(error: BaseException, parts: Sequence[BaseException]) -> str:
    if isinstance(error, BaseExceptionGroup):
        listed = "; ".join(described(part) for part in parts[:_PARTS_SHOWN])
        return storable(f"{described(error)}: {listed}")
    if isinstance(error, WorkloadError):
        return storable(error) or type(error).__name__
    return described(error)


def _code(error: BaseException) -> str:
    """What goes into ``error.code``; of a class of the workload's own, so anything may come of asking for it."""
    try:
        code = error.code if isinstance(error, WorkloadError) else ""
    except Exception:
        code = ""
    if code:
        return short_name(code)
    return OUT_OF_MEMORY_CODE if is_out_of_memory(error) else WorkloadError.code


def _parts(error: BaseException) -> Iterator[BaseException]:
    """The errors that an exception group is made of; any other error alone."""
    waiting, count = [error], 0
    while waiting and count < _PARTS_MAX:
        found = waiting.pop()
        if isinstance(found, BaseExceptionGroup):
            waiting += reversed(found.exceptions[:_PARTS_MAX])
        else:
            count += 1
            yield found


def decide(reports: Sequence[Report], control: Control, *, release: bool = False) -> Verdict:
    """What all ranks do, from one report of each.

    A failed attempt leaves the group usable only when every rank failed alike at the same point: otherwise
    some are ahead of others, and collectives that were begun will never be matched.
    """
    first = reports[0]
    same = all(
        (one.point, one.status, one.kind, one.permanent)
        == (first.point, first.status, first.kind, first.permanent)
        for one in reports
    )
    if not same or first.status is Status.UNRECOVERABLE:
        return Verdict.BREAK
    if control & Control.STALE:
        return Verdict.ABANDON
    if first.status is Status.FAILED:
        return Verdict.FAIL
    if control & (Control.CANCEL | Control.EXPIRE):
        return Verdict.STOP
    if first.status is Status.DONE:
        return Verdict.FINISH
    return Verdict.RELEASE if release else Verdict.GO_ON


def worst(reports: Sequence[Report]) -> Report | None:
    """The report that tells best why an attempt failed: a permanent error, else an error, else none."""
    failed = [one for one in reports if one.failed]
    # What a rank says about a dead peer is an echo of the peer's own error.
    failed.sort(key=lambda one: (not one.permanent, one.status is Status.UNRECOVERABLE))
    return failed[0] if failed else None
