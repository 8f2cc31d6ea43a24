"""``echo-serve``: answers each request in the way that its body describes, and can fail in every way that a test needs.

The JSON body of a request is a :class:`Wish`. A request without a body is answered with its method, path, query and
headers. Unless the request ends with an error or is refused, the workload adds two headers to the answer: ``echo-pid``
(the id of the leader's process) and ``echo-count`` (the number of requests that this process has served before).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.serving import Request, RequestError, Response

_CANCEL_POLL_S = 0.02


class Wish(BaseModel):
    """How a request wants to be answered."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    latency_s: float = Field(0.0, ge=0, description="Seconds to wait before the first byte.")
    chunks: int = Field(0, ge=0, description="Parts of the body. 0: the body is sent at once.")
    chunk_s: float = Field(0.0, ge=0, description="Seconds to wait after each part.")
    blanks: int = Field(0, ge=0, description="Empty parts before the others.")
    size: int = Field(0, ge=0, le=1 << 30, description="Bytes of the body, or of each part; 0: a short text.")
    status: int = Field(200, description="Status of the answer.")
    fault: Literal["", "error", "refuse", "crash", "hang", "nonsense"] = Field(
        "",
        description="What goes wrong: `error` (an exception), `refuse` (a RequestError with `status`), `crash` (the "
        "process ends), `hang`, or `nonsense` (a status that HTTP does not have).",
    )
    fault_at: int = Field(
        0, ge=0, description="The part before which the fault happens; 0: before the first byte."
    )
    fault_rank: int | None = Field(
        None, ge=0, description="The rank on which the fault happens; absent: all ranks."
    )
    tokens: int = Field(
        0, ge=0, description="Tokens to report for the request, and for each part of its answer."
    )
    patient: bool = Field(False, description="Continue even if the request is cancelled.")
    all_ranks: bool = Field(
        False,
        description="Before each part, a collective adds up one number from each rank. The part is the sum.",
    )
    leader_only: bool = Field(
        False, description="With `all_ranks`: ranks other than the leader yield empty parts."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Further headers of the answer.")


class EchoServe:
    """Implements :class:`daybreak_server.workloads.serving.ServingWorkload`."""

    models = ("echo",)

    def __init__(self) -> None:
        self._group = Group()
        self._numbers = itertools.count()

    def load(self, group: Group) -> None:
        """Load nothing."""
        self._group = group

    def warm_up(self) -> None:
        """Do nothing."""

    def serve(self, request: Request) -> Response:
        """Answer in the way that the body describes.

        :raises RequestError: if the body is invalid or asks for a refusal.
        :raises ValueError: if the body asks for an error.
        """
        headers = {"echo-pid": str(os.getpid()), "echo-count": str(next(self._numbers))}
        if not request.body:
            shown = {
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "headers": dict(request.headers),
                "has_deadline": request.deadline is not None,
            }
            return Response(headers=headers, body=Response.of_json(shown).body)
        try:
            wish = Wish.model_validate(request.json())
        except ValidationError as exc:
            raise RequestError(422, str(exc), code="invalid_wish") from exc
        headers |= wish.headers
        request.count_tokens(input=wish.tokens, output=0 if wish.chunks else wish.tokens)
        self._pause(wish.latency_s, request, wish)
        self._fault(wish, 0)
        if wish.fault == "nonsense" and not wish.fault_at:
            return Response(status=99, headers=headers)
        body = self._stream(wish, request) if wish.chunks else self._part(wish, 0)
        return Response(status=wish.status, headers=headers, body=body)

    def _stream(self, wish: Wish, request: Request) -> Iterator[bytes]:
        for _ in range(wish.blanks):
            yield b""
            time.sleep(wish.chunk_s)
        for number in range(1, wish.chunks + 1):
            self._fault(wish, number)
            request.count_tokens(output=wish.tokens)
            yield self._part(wish, number)
            self._pause(wish.chunk_s, request, wish)

    def _part(self, wish: Wish, number: int) -> bytes:
        if wish.all_ranks:
            sums = f"{self._sum_of_ranks()}\n".encode()
            return b"" if wish.leader_only and self._group.rank else sums
        return b"x" * wish.size if wish.size else f"part {number}\n".encode()

    def _sum_of_ranks(self) -> int:
        """The sum of ``rank + 1`` over all ranks, which a collective computes."""
        if self._group.size == 1:
            return 1
        import torch
        import torch.distributed as dist

        number = torch.tensor([self._group.rank + 1])
        dist.all_reduce(number)
        return int(number.item())

    def _pause(self, seconds: float, request: Request, wish: Wish) -> None:
        if not seconds:
            return
        end = time.monotonic() + seconds
        while not wish.patient and time.monotonic() < end and not request.cancelled():
            time.sleep(min(_CANCEL_POLL_S, max(0.0, end - time.monotonic())))
        if wish.patient:
            time.sleep(seconds)

    def _fault(self, wish: Wish, number: int) -> None:
        if number != wish.fault_at or wish.fault_rank not in (None, self._group.rank):
            return
        match wish.fault:
            case "error":
                raise ValueError("the request asked for an error")
            case "refuse":
                raise RequestError(wish.status, "the request asked to be refused", code="echo_refused")
            case "crash":
                os._exit(1)
            case "hang":
                threading.Event().wait()
            case _:
                return
