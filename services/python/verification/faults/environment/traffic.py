"""Clients that submit as fast as they can and remember which tasks were accepted."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response and the monotonic time of its arrival."""

    status: int
    body: dict[str, Any]
    retry_after: str | None
    at: float

    @property
    def code(self) -> str:
        """The code of an error response; empty for any other response."""
        return str(self.body.get("code", ""))


class GatewayConnection:
    """One keep-alive connection to a gateway, for one thread."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout_s)

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request. :raises OSError: if no valid HTTP response arrives; the request may have taken effect."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(
                method, path, data, {"content-type": "application/json", **(headers or {})}
            )
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise ConnectionError(f"{method} {path}: {exc!r}") from exc
        at = time.monotonic()
        try:
            content = json.loads(text) if text else {}
        except ValueError:
            content = {}
        retry_after = response.headers["retry-after"]
        return Response(status=response.status, body=content, retry_after=retry_after, at=at)

    def submit(self, body: Mapping[str, Any]) -> str:
        """Submit a task and return its id. :raises RuntimeError: when it is not accepted."""
        response = self.call("POST", "/v1/tasks", body)
        if response.status != 202:
            raise RuntimeError(f"the gateway refused a submit with status {response.status}: {response.body}")
        return str(response.body["id"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Traffic:
    """Submits tasks to a pool from several threads until the ``with`` block ends."""

    def __init__(
        self,
        urls: Sequence[str],
        pool: str,
        *,
        threads: int = 4,
        pause_s: float = 0.0,
        body: Callable[[int], dict[str, Any]] | None = None,
        keys: bool = False,
    ) -> None:
        """``keys``: send an Idempotency-Key and repeat each submit until it is accepted or refused for good."""
        self._urls = list(urls)
        self._pool = pool
        self._pause_s = pause_s
        self._body = body or (lambda number: {"input": {"steps": 1, "message": f"task {number}"}})
        self._keys = keys
        self.accepted: dict[str, float] = {}
        """The id of each accepted task → when the response with this id arrived."""
        self.refused: list[Response] = []
        self.unknown = 0
        """The number of submits without a response."""
        self._numbers = iter(range(1 << 60))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def _run(self, at: int) -> None:
        url = self._urls[at % len(self._urls)]
        connection = GatewayConnection(url)
        while not self._stopping.is_set():
            with self._lock:
                number = next(self._numbers)
            body = {"pool": self._pool, **self._body(number)}
            headers = {"idempotency-key": f"{id(self)}-{number}"} if self._keys else {}
            while not self._submit(connection, body, headers) and self._keys and not self._stopping.is_set():
                pass
            self._stopping.wait(self._pause_s)
        connection.close()

    def _submit(
        self, connection: GatewayConnection, body: dict[str, Any], headers: Mapping[str, str]
    ) -> bool:
        """Submit once. :returns: whether the response is final, so that the submit need not be repeated."""
        try:
            response = connection.call("POST", "/v1/tasks", body, headers=headers)
        except OSError:
            self.unknown += 1
            self._stopping.wait(0.05)
            return False
        if response.status in (200, 202):
            with self._lock:
                self.accepted.setdefault(response.body["id"], response.at)
            return True
        with self._lock:
            self.refused.append(response)
        self._stopping.wait(0.02)
        return response.status < 429


def get_tasks(
    urls: Sequence[str], tasks: Sequence[str], *, threads: int = 4
) -> dict[str, dict[str, Any] | None]:
    """Each task as the API shows it; ``None`` for a task that does not exist."""

    def get_share(index: int) -> list[tuple[str, dict[str, Any] | None]]:
        connection = GatewayConnection(urls[index % len(urls)])
        with contextlib.closing(connection):
            return [(task, _get_task(connection, task)) for task in tasks[index::threads]]

    with ThreadPoolExecutor(threads) as pool:
        return dict(pair for views in pool.map(get_share, range(threads)) for pair in views)


def _get_task(connection: GatewayConnection, task: str) -> dict[str, Any] | None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            response = connection.call("GET", f"/v1/tasks/{task}")
            if response.status == 200:
                return response.body
            if response.status == 404:
                return None
        if time.monotonic() > end:
            raise TimeoutError(f"no gateway returned {task} within 30 s")
        time.sleep(0.1)


def settle(
    urls: Sequence[str], tasks: Sequence[str], *, timeout_s: float = 60.0
) -> dict[str, dict[str, Any] | None]:
    """Poll until every task has ended or does not exist, or until the timeout. :returns: the last view of each task."""
    end = time.monotonic() + timeout_s
    views: dict[str, dict[str, Any] | None] = {}
    pending = list(tasks)
    while True:
        views |= get_tasks(urls, pending)
        pending = unsettled({task: views[task] for task in pending})
        if not pending or time.monotonic() > end:
            return views
        time.sleep(0.25)


def unsettled(views: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """The tasks that exist and have not ended."""
    return [task for task, view in views.items() if view is not None and view["state"] not in TERMINAL]


@contextlib.contextmanager
def connection(url: str) -> Iterator[GatewayConnection]:
    """A :class:`GatewayConnection` that is closed afterwards."""
    with contextlib.closing(GatewayConnection(url)) as connection:
        yield connection
