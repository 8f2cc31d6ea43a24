"""Decides which promises of a serving pool, or of a model on workers, were broken, from a history alone.

The history has the requests of clients and their answers, the runs of groups (an engine counts as a group here), and
the injected faults. Each rule is a pure function that yields the violations of one promise:

* ``answered``: each request is answered within its deadline, unless its answer begins and then breaks off.
* ``cut_by_a_fault``: an answer that had begun breaks off only if its group or its gateway was killed.
* ``complete``: an answer that looks complete is complete, and the received prefix of a cut-off answer is correct.
* ``no_retry_after_first_byte``: no request runs or is sent again after the first byte of its answer.
* ``alive_stays``: if a group has begun to run a request, another group runs it only if the first group was killed,
  or if the client sent the request again.
* ``bounded``: each time that a client sends a request, at most ``router.max_tries`` groups run it.
* ``accounted``: each answer comes from a group that ran the request, and each end of a run has a beginning.
* ``no_orphans``: no engine outlives its worker.
* ``stays``: in a scenario that kills and stops no group, each group works until the scenario ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from verification.faults.checker import Verdict
from verification.faults.checks.observations import Violation
from verification.faults.history import Line
from verification.faults.serving.observations import Request, Run, Send, ServingObservations, gather

MAX_TRIES = 3
"""The setting ``router.max_tries`` of the clusters."""
NOTICED_S = 5.0
"""How long a client may take to notice a dead peer. Normally the kernel closes the connection at once."""
LOGGED_S = 0.5
"""A kill is logged at most this long after it has happened."""
Rule = Callable[[ServingObservations], Iterator[Violation]]


def check(lines: Iterable[Line]) -> Verdict:
    """Run every rule on the lines of a history."""
    seen = gather(lines)
    violations = tuple(violation for rule in RULES for violation in rule(seen))
    return Verdict(violations=violations, counts=dict(seen.line_counts))


def answered(seen: ServingObservations) -> Iterator[Violation]:
    """Each request gets a complete answer within its deadline, unless its answer begins and then breaks off."""
    if not seen.settled:
        yield _violation("unsettled", None, "the history ends before the clients have ended")
    for request in seen.requests.values():
        last = request.last
        if last is None:
            yield _violation("failed", request, "it was never sent")
        elif last.kind == "cut" and last.status in (0, 200):  # 0: the answer broke off within its head
            continue
        elif last.kind != "complete" or last.status != 200:
            yield _violation("failed", request, _outcome(last))
        elif last.ended > request.began + request.deadline_s:
            yield _violation("late", request, f"answered {last.ended - request.began:.3f} s after it began")


def cut_by_a_fault(seen: ServingObservations) -> Iterator[Violation]:
    """An answer is cut off only if its gateway or its group was killed. A connection breaks before the answer only if
    the gateway was killed, and a gateway says that it is shutting down only if it was preempted."""
    for request in seen.requests.values():
        for send in request.sends:
            if send.kind == "complete":
                continue
            deaths = seen.gateway_kills(send.gateway)
            if send.kind == "cut":
                deaths = [*deaths, *seen.group_kills(send.pid)]
            if send.kind == "closing":
                deaths = [
                    fault.at
                    for fault in seen.faults
                    if fault.kind == "preempt-gateway" and fault.name == send.gateway
                ]
            if any(send.began - NOTICED_S <= at <= send.ended + NOTICED_S for at in deaths):
                continue
            if send.kind != "broken" or not _is_still_down(seen, send, deaths):
                yield _violation("unexplained", request, f"no fault explains this: {_outcome(send)}")


def _is_still_down(seen: ServingObservations, send: Send, deaths: Iterable[float]) -> bool:
    """Whether the gateway was killed and has sent no answer since. On a busy machine, its restart takes
    long."""
    return any(
        at <= send.began
        and not any(at + NOTICED_S < first < send.began for first in seen.answers(send.gateway))
        for at in deaths
    )


def complete(seen: ServingObservations) -> Iterator[Violation]:
    """A complete answer has exactly the expected bytes, and a cut-off answer has a prefix of them."""
    for request in seen.requests.values():
        for send in request.sends:
            if send.status != 200:
                continue
            expected = request.wish.answer(request.number)
            if send.kind == "complete" and send.size < len(expected):
                yield _violation("truncated", request, f"{send.size} of {len(expected)} bytes look complete")
            elif zlib.crc32(expected[: send.size]) != send.crc or send.size > len(expected):
                yield _violation("wrong", request, f"the {send.size} bytes are not those of its answer")


def no_retry_after_first_byte(seen: ServingObservations) -> Iterator[Violation]:
    """No client sends a request, and no group runs it, after the first byte of its answer."""
    for request in seen.requests.values():
        begun = [send.first for send in request.sends if send.first is not None and send.status == 200]
        if not begun:
            continue
        first = min(begun)
        for send in request.sends:
            if send.began > first:
                yield _violation("twice", request, "a client sent it again after the first byte")
        for run in request.runs:
            if run.began > first and not _began_when_killed(seen, run):
                yield _violation(
                    "twice", request, f"process {run.pid} ran it after the first byte of its answer"
                )


def _began_when_killed(seen: ServingObservations, run: Run) -> bool:
    """Whether the process began to run a request after it or its worker had been killed.

    The engine of a killed worker lives for a moment longer. A request that it reads in this time may already have been
    answered by another process.
    """
    return any(at - LOGGED_S <= run.began <= at + NOTICED_S for at in seen.group_kills(run.pid))


def alive_stays(seen: ServingObservations) -> Iterator[Violation]:
    """After a group has begun to run a request, no other group runs it, unless the first group was killed or the client
    sent the request again. It does not matter how slow the first group is."""
    for request in seen.requests.values():
        for run, following in pairwise(run for run in request.runs if not _began_when_killed(seen, run)):
            if run.send != following.send:
                continue  # the client sent the request again, so another group may run it
            kills = seen.group_kills(run.pid)
            if not any(run.began - NOTICED_S <= at <= following.began + NOTICED_S for at in kills):
                yield _violation(
                    "abandoned", request, f"process {run.pid} lived, but {following.pid} ran it as well"
                )


def bounded(seen: ServingObservations) -> Iterator[Violation]:
    """Each time that a client sends a request, at most ``MAX_TRIES`` groups run it."""
    for request in seen.requests.values():
        for send in request.sends:
            runs = sum(run.send == send.number for run in request.runs)
            if runs > MAX_TRIES:
                yield _violation("tries", request, f"{runs} groups ran one send of it")


def accounted(seen: ServingObservations) -> Iterator[Violation]:
    """The answers that clients got match the runs of groups."""
    for line in seen.strays:
        yield _violation("stray", None, f"this line has no request, or ends a run that never began: {line}")
    for request in seen.requests.values():
        for send in request.sends:
            if send.status != 200:
                continue
            runs = [run for run in request.runs if run.pid == send.pid and run.send == send.number]
            if not runs:
                yield _violation("phantom", request, f"process {send.pid} answered, but did not run it")
            elif send.kind == "complete" and all(run.how != "end" for run in runs):
                yield _violation("phantom", request, f"process {send.pid} answered, but did not finish it")


def no_orphans(seen: ServingObservations) -> Iterator[Violation]:
    """No engine outlives its worker, whatever ended the worker."""
    for pid, worker in seen.orphans.items():
        yield _violation("orphan", None, f"process {pid}, an engine of {worker}, outlived it")


def stays(seen: ServingObservations) -> Iterator[Violation]:
    """If no group was killed or stopped, no group ends, and each group that ran requests in the first half of the
    scenario also runs some in the last quarter."""
    if not seen.must_stay or not seen.requests:
        return
    for pid, at in seen.ended_pids.items():
        yield _violation("left", None, f"process {pid} ended at {at:.1f} s, although nothing stopped it")
    began = min(request.began for request in seen.requests.values())
    ended = max((send.ended for request in seen.requests.values() for send in request.sends), default=began)
    runs = [run for request in seen.requests.values() for run in request.runs]
    early = {run.pid for run in runs if run.began <= began + (ended - began) / 2}
    late = {run.pid for run in runs if run.began >= ended - (ended - began) / 4}
    for pid in sorted(early - late - seen.ended_pids.keys()):
        yield _violation("left", None, f"process {pid} lives, but gets no more requests")


RULES: tuple[Rule, ...] = (
    answered,
    cut_by_a_fault,
    complete,
    no_retry_after_first_byte,
    alive_stays,
    bounded,
    accounted,
    no_orphans,
    stays,
)


def _violation(kind: str, request: Request | None, what: str) -> Violation:
    return Violation(kind=kind, task=None if request is None else f"request {request.number}", what=what)


def _outcome(send: Send) -> str:
    return f"send {send.number} to {send.gateway} ended as {send.kind}, status {send.status}: {send.error}"
