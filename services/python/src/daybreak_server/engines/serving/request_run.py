"""Runs one request on a rank, with a point of agreement after each part of the answer.

This is the lockstep of jobs (:mod:`~daybreak_server.engines.ranks.lockstep`) with parts in place of steps. The leader
sends a part to the client once every rank has produced it. All ranks stop after the same part. A group of one rank
agrees with itself, which costs microseconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from daybreak_server.domain import private_inputs
from daybreak_server.domain.log_context import bound
from daybreak_server.domain.tasks import Control
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.ranks.channel import Message
from daybreak_server.engines.ranks.consensus import GroupDecision, RankReport, Status, decide, worst
from daybreak_server.engines.ranks.control_group import RANK_LOST, ControlGroup, LeaderConnection
from daybreak_server.engines.ranks.lockstep import drive
from daybreak_server.engines.serving.answer_parts import AnswerPart, parts_of
from daybreak_server.engines.serving.exchange import Exchange, Stop
from daybreak_server.workloads.serving import Request, ServingWorkload, never

ORDER = "serve"
"""The kind of the leader's order to run a request. The order's payload is the request's body."""
_READABLE_BYTES = 64 * 1024
"""The log masks all text of a JSON body up to this size. Of a larger body, it masks only the text at the beginning."""

_CREDENTIALS = ("authorization", "cookie", "x-api-key", "api-key")
"""Headers whose values the log does not quote."""


class RequestRun:
    """Runs requests on the leader. In a group of one rank, several threads may call :meth:`answer` at once."""

    def __init__(self, workload: ServingWorkload, control_group: ControlGroup, *, lockstep: bool) -> None:
        self._workload = workload
        self._control_group = control_group
        self._lockstep = lockstep

    def answer(self, exchange: Exchange) -> RankReport | None:
        """Answer a request. Returns why the group is broken, or ``None`` if it is not.

        :raises GroupBrokenError: if another rank is gone or sends no report.
        """
        if not exchange.begin():
            exchange.abandon()
            return None
        request = exchange.request
        if self._lockstep:
            request = replace(request, cancelled=never)
        reports: Sequence[RankReport] = ()
        unsent: AnswerPart | None = None

        def agree(own_report: RankReport, part: AnswerPart | None) -> GroupDecision:
            nonlocal reports, unsent
            reports = [own_report]
            reports = self._control_group.collect(own_report)
            exchange.beat()
            stopped = own_report.status is Status.STEPPED and exchange.stopped is not None
            decision = decide(reports, Control.CANCEL if stopped else Control(0))
            self._control_group.announce(decision)
            if decision is GroupDecision.CONTINUE and part is not None:
                if part.data:
                    exchange.send(part)
                unsent = None if part.data or part.head is None else part
            return decision

        try:
            if self._lockstep:
                self._control_group.order(ORDER, request.body, **_fields(request))
            with _private(request), bound(request_id=request.headers.get("x-request-id", "")):
                decision = drive(parts_of(self._workload, request), agree, check=_checked, what="request")
        except GroupBrokenError as exc:
            failure = self._control_group.failure(now=True)
            if failure is not None and failure.code == RANK_LOST:  # the request may not be the cause
                exchange.stop(Stop.BROKEN)
                exchange.abandon()
            else:
                exchange.fail(worst(reports) or failure or _lost(str(exc)))
            raise
        if decision is GroupDecision.FINISH:
            if unsent is not None:
                exchange.send(unsent)  # an answer without any bytes still has a head
            exchange.finish()
        elif decision is GroupDecision.STOP:
            exchange.abandon()
        else:
            exchange.fail(worst(reports) or _lost("the ranks did not reach the same point"))
        return (worst(reports) or _lost("the ranks disagree")) if decision is GroupDecision.BREAK else None


def follow(order: Message, workload: ServingWorkload, leader: LeaderConnection) -> GroupDecision:
    """Run the request of an order on a follower, in lockstep with the leader, and drop the answer.

    :raises GroupBrokenError: if the leader is gone.
    """
    request = _request(order.fields, order.payload)

    def agree(own_report: RankReport, _part: AnswerPart | None) -> GroupDecision:
        return leader.agree(own_report)

    with _private(request), bound(request_id=request.headers.get("x-request-id", "")):
        return drive(parts_of(workload, request), agree, check=_checked, what="request")


@contextlib.contextmanager
def _private(request: Request) -> Iterator[None]:
    """Keep the body, the query and the credentials of the request out of the log."""
    body = request.body
    known = body if len(body) <= _READABLE_BYTES else body[: private_inputs.INPUT_CHARS]
    secrets = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
    if request.query:
        secrets["query"] = request.query
    with contextlib.ExitStack() as stack:
        if secrets:
            stack.enter_context(private_inputs.running(secrets, ""))
        stack.enter_context(private_inputs.running(known.decode("utf-8", "replace"), ""))
        yield


def _checked(part: AnswerPart) -> AnswerPart:
    return part  # `parts_of` has checked it


def _lost(message: str) -> RankReport:
    return RankReport(point=0, status=Status.UNRECOVERABLE, code=RANK_LOST, message=message)


def _fields(request: Request) -> dict[str, Any]:
    remaining_s = None if request.deadline is None else request.deadline - time.monotonic()
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "remaining_s": remaining_s,
    }


def _request(fields: Mapping[str, Any], body: bytes) -> Request:
    remaining_s = fields["remaining_s"]
    return Request(
        method=fields["method"],
        path=fields["path"],
        query=fields["query"],
        headers=fields["headers"],
        body=body,
        deadline=None if remaining_s is None else time.monotonic() + remaining_s,
    )
