"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx2

from daybreak.config import Config
from daybreak.core import routes
from daybreak.core.download import download
from daybreak.core.effects import (
    Close,
    Done,
    Effect,
    Emit,
    Open,
    Operation,
    Outcome,
    Read,
    Reply,
    RunBlocking,
    Send,
    Sleep,
    step,
)
from daybreak.core.follow import follow, wait
from daybreak.core.logs import logs
from daybreak.core.retry import ApiRequest, Retry, request_with_retries
from daybreak.core.routes import Preview, TaskRef
from daybreak.errors import DaybreakError
from daybreak.models import AsyncModels, AsyncWorkers
from daybreak.sessions import AsyncSessions
from daybreak.transport import (
    HTTP_ERRORS,
    build_request,
    http_options,
    session_headers,
    to_reply,
    translate_error,
    translate_setup_errors,
)
from daybreak.wire import (
    BatchResult,
    Estimate,
    Event,
    LogLine,
    Pool,
    Priority,
    SubmitRequest,
    Task,
    TaskState,
)

T = TypeVar("T")


class AsyncClient:
    """A client of a Daybreak server, for one event loop. Close it, or use it in ``async with``.

    ``url`` and ``api_key`` default to ``DAYBREAK_URL`` and ``DAYBREAK_API_KEY``. If ``DAYBREAK_URL`` is not set, the
    URL is ``http://127.0.0.1:8000``. Every method may raise the errors of :mod:`daybreak.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._config = Config.load(url=url, api_key=api_key)
        self._retry = retry or Retry()
        options = http_options(self._config, dict(headers or {}))
        with translate_setup_errors():
            self._http = httpx2.AsyncClient(**options, transport=transport)

        self.models = AsyncModels(self._run_operation, self._iterate, self._retry)
        """The models that workers serve."""
        self.workers = AsyncWorkers(self._run_operation, self._retry)
        """The workers."""
        self.sessions = AsyncSessions(
            self._run_operation, self._retry, server=self._config.url, headers=session_headers(options)
        )
        """Streaming sessions, which translate speech while it arrives."""

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._config.url

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(
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
        """Submit a task. When this method returns, the task is stored.

        ``start_at`` (with a time zone) is the earliest start. The task expires if it does not start within
        ``start_within_s`` seconds of the submit (or of ``start_at``, if set), or does not end within ``run_within_s``
        seconds of its first start. An ``idempotency_key`` ensures that retries create only one task. The client creates
        a key for each call; pass your own key if your program may restart and submit the task again. A key belongs to
        one tenant and one pool, and lives as long as its task: until the task's retention ends or the task is deleted.
        """
        body = routes.submit_body(
            pool,
            input,
            priority=priority,
            start_at=start_at,
            start_within_s=start_within_s,
            run_within_s=run_within_s,
            max_strikes=max_strikes,
            metadata=metadata,
        )
        return await self._request(routes.submit(body, idempotency_key=idempotency_key))

    async def submit_batch(
        self, tasks: Iterable[SubmitRequest | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> BatchResult:
        """Submit up to 100 tasks in one request. Each task is accepted or refused on its own.

        The results are in the order of the tasks.
        """
        return await self._request(routes.submit_batch(tasks, idempotency_key=idempotency_key))

    async def estimate(self, pool: str, input: Mapping[str, Any]) -> Estimate:
        """Estimate how long a task would wait and run, without submitting it."""
        return await self._request(routes.estimate(routes.submit_body(pool, input)))

    async def get(self, task: TaskRef) -> Task:
        """Return a task in its current state."""
        return await self._request(routes.get(task))

    def list(
        self,
        *,
        pool: str | None = None,
        state: TaskState | str | None = None,
        order: str = "desc",
        limit: int | None = None,
    ) -> AsyncIterator[Task]:
        """Iterate over tasks, newest first (``order="asc"``: oldest first). Pages are requested as needed."""
        return self._iterate(
            routes.list_tasks(pool=pool, state=state, order=order, limit=limit, retry=self._retry)
        )

    async def cancel(self, task: TaskRef) -> Task:
        """Cancel a task. A running task stops at the end of its current step. A task that has ended does not change."""
        return await self._request(routes.cancel(task))

    async def replay(self, task: TaskRef, *, idempotency_key: str | None = None) -> Task:
        """Submit a new task with the input of a task that has ended."""
        return await self._request(routes.replay(task, idempotency_key=idempotency_key))

    async def delete(self, task: TaskRef) -> None:
        """Delete a task that has ended, with its events and files."""
        await self._request(routes.delete(task))

    async def pools(self) -> tuple[Pool, ...]:
        """Return all pools."""
        return await self._request(routes.pools())

    async def pool(self, name: str) -> Pool:
        """Return a pool: its queue, its groups and the JSON schema of its input."""
        return await self._request(routes.pool(name))

    async def preview(self, task: TaskRef) -> Preview:
        """Download the latest preview image of a running task. Raises ``NotFoundError`` if it has none."""
        return await self._request(routes.preview(task))

    async def download(self, task: TaskRef, name: str, path: str | os.PathLike[str] | None = None) -> Path:
        """Download an artifact to ``path``: a file, an existing folder, or a path that ends with ``/`` (a new folder).

        Without ``path``, the file is created in the working directory, under the artifact's name. Symbolic links are
        followed. If ``path`` is a device or a FIFO, the bytes are written to it. An interrupted download resumes, even
        in another process. The file appears only when it is complete and its SHA-256 is right.
        """
        return await self._run_operation(download(task, name, path, retry=self._retry))

    def events(self, task: TaskRef, *, after: str | None = None) -> AsyncIterator[Event]:
        """Iterate over the task's events after the id ``after`` (default: all), each once and in order.

        The client reconnects when a connection breaks. The iteration ends after the terminal event. The events
        ``wake``, ``position`` and ``reset`` describe the present. They have no id, and those that a client misses are
        not sent again.
        """
        return self._iterate(follow(task, after=after, retry=self._retry))

    def history(self, task: TaskRef) -> AsyncIterator[Event]:
        """Iterate over the events that the server has stored so far, without waiting for more.

        If old events were deleted, the iteration begins with an event ``reset``.
        """
        return self._iterate(follow(task, after=None, retry=self._retry, live=False))

    def logs(
        self, task: TaskRef, *, follow: bool = False, after: str | None = None
    ) -> AsyncIterator[LogLine]:
        """Iterate over the lines that the task's workload has logged after the event ``after`` (default: all).

        With ``follow``, the iteration waits for more lines, and ends when the task ends. The client reconnects when a
        connection breaks. A line's field ``dropped`` says how many lines are missing before it.
        """
        return self._iterate(logs(task, after=after, follow_live=follow, retry=self._retry))

    async def wait(self, task: TaskRef, *, timeout_s: float | None = None, check: bool = True) -> Task:
        """Wait until the task ends. Raises ``TaskFailedError`` if it did not succeed, unless ``check=False``."""
        return await self._run_operation(wait(task, timeout_s=timeout_s, check=check, retry=self._retry))

    async def _request(self, api_request: ApiRequest[T]) -> T:
        return await self._run_operation(request_with_retries(api_request, self._retry))

    async def _run_operation(self, operation: Operation[T]) -> T:
        outcome = Outcome()
        async with _EffectRunner(self._http, self.url) as effects:
            while not isinstance(effect := step(operation, outcome), Done):
                outcome = await effects.perform(effect)
            return effect.value

    async def _iterate(self, operation: Operation[Any]) -> AsyncIterator[Any]:
        outcome = Outcome()
        async with _EffectRunner(self._http, self.url) as effects:
            while not isinstance(effect := step(operation, outcome), Done):
                if isinstance(effect, Emit):
                    yield effect.value
                    outcome = Outcome()
                else:
                    outcome = await effects.perform(effect)


class _EffectRunner:
    """Performs the effects of one operation. Keeps the operation's open response from one effect to the next."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] = _no_chunks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def perform(self, effect: Effect) -> Outcome:
        try:
            return Outcome(value=await self._perform(effect))
        except HTTP_ERRORS as exc:
            return Outcome(error=translate_error(exc, self._url))
        except (OSError, DaybreakError) as exc:
            return Outcome(error=exc)

    async def _perform(self, effect: Effect) -> object:
        match effect:
            case Send(request):
                http_request = build_request(self._http, request)
                response = await self._http.send(http_request, follow_redirects=request.follow_redirects)
                return to_reply(response, response.content)
            case Open():
                return await self._open_stream(effect)
            case Read():
                return await anext(self._chunks, None)
            case Close():
                await self._close()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case RunBlocking(function):
                return cast("object", await asyncio.to_thread(function))
            case Emit():
                raise AssertionError("only an operation that the caller iterates over emits values")
        return None

    async def _open_stream(self, effect: Open) -> Reply:
        await self._close()
        request = effect.request
        http_request = build_request(self._http, request)
        response = await self._http.send(http_request, stream=True, follow_redirects=request.follow_redirects)
        self._response = response
        if response.status_code >= 300:
            return to_reply(response, await response.aread())
        self._chunks = response.aiter_bytes()
        return to_reply(response)

    async def _close(self) -> None:
        response, self._response, self._chunks = self._response, None, _no_chunks()
        if response is not None:
            await response.aclose()


async def _no_chunks() -> AsyncIterator[bytes]:
    return
    yield b""
