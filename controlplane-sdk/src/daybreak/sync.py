"""The client for ordinary code."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx2

from daybreak.config import Config
from daybreak.core import operations
from daybreak.core.download import downloading
from daybreak.core.effects import (
    Close,
    Do,
    Done,
    Effect,
    Emit,
    Open,
    Operation,
    Outcome,
    Read,
    Reply,
    Send,
    Sleep,
    advance,
)
from daybreak.core.follow import following, waiting
from daybreak.core.operations import Preview, TaskRef
from daybreak.core.retry import Call, Retry, calling
from daybreak.errors import DaybreakError
from daybreak.transport import FAULTS, build, http_options, http_set_up, reply_of, translate
from daybreak.wire import BatchResult, Estimate, Event, Pool, Priority, SubmitRequest, Task, TaskState

T = TypeVar("T")


class Client:
    """Talks to a Daybreak server. Threads may share one; close it, or use it in ``with``.

    ``url`` and ``api_key`` default to ``DAYBREAK_URL`` (``http://127.0.0.1:8000``) and ``DAYBREAK_API_KEY``.
    Every method may raise the errors of :mod:`daybreak.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._config = Config.load(url=url, api_key=api_key)
        self._retry = retry or Retry()
        options = http_options(self._config, dict(headers or {}))
        with http_set_up():
            self._http = httpx2.Client(**options, transport=transport)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._config.url

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        pool: str,
        input: Mapping[str, Any],
        *,
        priority: Priority | str | None = None,
        start_at: datetime | None = None,
        start_within_s: float | None = None,
        run_within_s: float | None = None,
        max_strikes: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Hand in a task. When this returns, the task is stored and will be run.

        ``start_at`` (with a zone) is the earliest start; ``start_within_s`` and ``run_within_s`` (s) let
        the task expire. ``idempotency_key`` is made when absent, so that a repeated send never makes a second
        task; give your own to have that across restarts of your program. A key belongs to one tenant and one pool,
        and lives as long as its task: until the pool's retention ends, or until the task is deleted.
        """
        body = operations.submission(
            pool,
            input,
            priority=priority,
            start_at=start_at,
            start_within_s=start_within_s,
            run_within_s=run_within_s,
            max_strikes=max_strikes,
            metadata=metadata,
        )
        return self._call(operations.submit(body, idempotency_key=idempotency_key))

    def submit_batch(
        self, tasks: Iterable[SubmitRequest | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> BatchResult:
        """Hand in at most 100 tasks at once; each is taken or refused on its own, in the order given."""
        return self._call(operations.submit_batch(tasks, idempotency_key=idempotency_key))

    def estimate(self, pool: str, input: Mapping[str, Any]) -> Estimate:
        """What a task would take, without handing it in."""
        return self._call(operations.estimate(operations.submission(pool, input)))

    def get(self, task: TaskRef) -> Task:
        """The task as it is now."""
        return self._call(operations.get(task))

    def list(
        self,
        *,
        pool: str | None = None,
        state: TaskState | str | None = None,
        order: str = "desc",
        limit: int | None = None,
    ) -> Iterator[Task]:
        """Tasks, the newest first (``order="asc"``: the oldest), page by page as they are asked for."""
        return self._iterate(
            operations.listing(pool=pool, state=state, order=order, limit=limit, retry=self._retry)
        )

    def cancel(self, task: TaskRef) -> Task:
        """Ask for the task's end. A running one stops within a step; one that has ended stays as it is."""
        return self._call(operations.cancel(task))

    def replay(self, task: TaskRef, *, idempotency_key: str | None = None) -> Task:
        """A new task with the same input as one that has ended."""
        return self._call(operations.replay(task, idempotency_key=idempotency_key))

    def delete(self, task: TaskRef) -> None:
        """Remove a task that has ended, with its events and files."""
        self._call(operations.delete(task))

    def pools(self) -> tuple[Pool, ...]:
        """All pools."""
        return self._call(operations.pools())

    def pool(self, name: str) -> Pool:
        """One pool: how much waits, who works, and the JSON schema of its input."""
        return self._call(operations.pool(name))

    def preview(self, task: TaskRef) -> Preview:
        """The latest picture of a running task. Raises ``NotFoundError`` while there is none."""
        return self._call(operations.preview(task))

    def download(self, task: TaskRef, name: str, path: str | os.PathLike[str] | None = None) -> Path:
        """Bring an artifact to ``path`` (a file, or a folder that exists; absent: its own name here).

        A path that ends with ``/`` is a folder to make. Links are followed, and a device or a FIFO is written into.
        Goes on where an earlier call broke, checks the SHA-256, and puts the file in place at once.
        """
        return self._run(downloading(task, name, path, retry=self._retry))

    def events(self, task: TaskRef, *, after: str | None = None) -> Iterator[Event]:
        """The task's events after the id ``after`` (absent: all), each once and in order, until its last.

        Lost connections are made again. ``wake``, ``position`` and ``reset`` tell of the moment, without id.
        """
        return self._iterate(following(task, after=after, retry=self._retry))

    def wait(self, task: TaskRef, *, timeout_s: float | None = None, check: bool = True) -> Task:
        """Wait for the end. Raises ``TaskFailedError`` unless it succeeded (``check=False``: never that)."""
        return self._run(waiting(task, timeout_s=timeout_s, check=check, retry=self._retry))

    def _call(self, call: Call[T]) -> T:
        return self._run(calling(call, self._retry))

    def _run(self, operation: Operation[T]) -> T:
        outcome = Outcome()
        with _Exchange(self._http, self.url) as exchange:
            while not isinstance(effect := advance(operation, outcome), Done):
                outcome = exchange.perform(effect)
            return effect.value

    def _iterate(self, operation: Operation[Any]) -> Iterator[Any]:
        outcome = Outcome()
        with _Exchange(self._http, self.url) as exchange:
            while not isinstance(effect := advance(operation, outcome), Done):
                if isinstance(effect, Emit):
                    yield effect.value
                    outcome = Outcome()
                else:
                    outcome = exchange.perform(effect)


class _Exchange:
    """Carries out effects; holds the one answer that may be open."""

    def __init__(self, http: httpx2.Client, url: str) -> None:
        self._http = http
        self._url = url
        self._open: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def perform(self, effect: Effect) -> Outcome:
        try:
            return Outcome(value=self._carry_out(effect))
        except FAULTS as exc:
            return Outcome(error=translate(exc, self._url))
        except (OSError, DaybreakError) as exc:
            return Outcome(error=exc)

    def _carry_out(self, effect: Effect) -> object:
        match effect:
            case Send(request):
                built = build(self._http, request)
                response = self._http.send(built, follow_redirects=request.follow_redirects)
                return reply_of(response, response.content)
            case Open():
                return self._start(effect)
            case Read():
                return next(self._chunks, None)
            case Close():
                self._close()
            case Sleep(seconds):
                time.sleep(seconds)
            case Do(call):
                return cast("object", call())
            case Emit():
                raise AssertionError("values are given out by the one who iterates")
        return None

    def _start(self, effect: Open) -> Reply:
        self._close()
        request = effect.request
        built = build(self._http, request)
        response = self._http.send(built, stream=True, follow_redirects=request.follow_redirects)
        self._open = response
        if response.status_code >= 300:
            return reply_of(response, response.read())
        self._chunks = response.iter_bytes()
        return reply_of(response)

    def _close(self) -> None:
        response, self._open, self._chunks = self._open, None, iter(())
        if response is not None:
            response.close()
