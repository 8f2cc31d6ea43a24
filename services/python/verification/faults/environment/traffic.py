"""Clients that submit as fast as they are let, and remember what they were promised."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer, and when it came (monotonic)."""

    status: int
    body: dict[str, Any]
    retry_after: str | None
    at: float

    @property
    def code(self) -> str:
        """The problem's code; empty where it is none."""
        return str(self.body.get("code", ""))


class Caller:
    """One keep-alive connection to a gateway. Not for more than one thread."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout_s)

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """:raises OSError: also where what came was no HTTP: then nobody knows what was done."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(
                method, path, data, {"content-type": "application/json", **(headers or {})}
            )
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise ConnectionError(f"{method} {path}: {exc!r}") from exc
        at = time.monotonic()
        try:
            shown = json.loads(text) if text else {}
        except ValueError:
            shown = {}
        return Answer(status=answer.status, body=shown, retry_after=answer.headers["retry-after"], at=at)

    def submit(self, body: Mapping[str, Any]) -> str:
        """The id of a task that must be accepted. :raises RuntimeError: with the answer when it is not."""
        answer = self.call("POST", "/v1/tasks", body)
        if answer.status != 202:
            raise RuntimeError(f"a submit was answered with {answer.status}: {answer.body}")
        return str(answer.body["id"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Traffic:
    """Submits to a pool from several threads while it is open (use ``with``)."""

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
        """``keys``: with an Idempotency-Key, and repeated with it until an answer comes."""
        self._urls = list(urls)
        self._pool = pool
        self._pause_s = pause_s
        self._body = body or (lambda number: {"input": {"steps": 1, "message": f"task {number}"}})
        self._keys = keys
        self.accepted: dict[str, float] = {}
        """Task → when its 202 came."""
        self.refused: list[Answer] = []
        self.unknown = 0
        """Submits without an answer."""
        self._numbers = iter(range(1 << 60))
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def codes(self) -> Counter[str]:
        """Refusals by status and code."""
        return Counter(f"{answer.status} {answer.code}" for answer in list(self.refused))

    def unhinted(self) -> list[Answer]:
        """Refusals for a while (429, 503) that do not say when to come back."""
        return [one for one in list(self.refused) if one.status in (429, 503) and one.retry_after is None]

    def _run(self, at: int) -> None:
        url = self._urls[at % len(self._urls)]
        caller = Caller(url)
        while not self._ending.is_set():
            with self._lock:
                number = next(self._numbers)
            body = {"pool": self._pool, **self._body(number)}
            headers = {"idempotency-key": f"{id(self)}-{number}"} if self._keys else {}
            while not self._submit(caller, body, headers) and self._keys and not self._ending.is_set():
                pass
            self._ending.wait(self._pause_s)
        caller.close()

    def _submit(self, caller: Caller, body: dict[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether it was answered for good."""
        try:
            answer = caller.call("POST", "/v1/tasks", body, headers=headers)
        except OSError:
            self.unknown += 1
            self._ending.wait(0.05)
            return False
        if answer.status in (200, 202):
            with self._lock:
                self.accepted.setdefault(answer.body["id"], answer.at)
            return True
        with self._lock:
            self.refused.append(answer)
        self._ending.wait(0.02)
        return answer.status < 429


def look(urls: Sequence[str], tasks: Sequence[str], *, threads: int = 4) -> dict[str, dict[str, Any] | None]:
    """Each task as the API shows it; ``None`` where there is no such task (any more)."""

    def some(at: int) -> list[tuple[str, dict[str, Any] | None]]:
        caller = Caller(urls[at % len(urls)])
        with contextlib.closing(caller):
            return [(task, _shown(caller, task)) for task in tasks[at::threads]]

    with ThreadPoolExecutor(threads) as pool:
        return dict(pair for found in pool.map(some, range(threads)) for pair in found)


def _shown(caller: Caller, task: str) -> dict[str, Any] | None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            answer = caller.call("GET", f"/v1/tasks/{task}")
            if answer.status == 200:
                return answer.body
            if answer.status == 404:
                return None
        if time.monotonic() > end:
            raise TimeoutError(f"{task} cannot be read")
        time.sleep(0.1)


def settle(
    urls: Sequence[str], tasks: Sequence[str], *, timeout_s: float = 60.0
) -> dict[str, dict[str, Any] | None]:
    """Look until each has ended or is not there; what has not ended by then is as it is."""
    end = time.monotonic() + timeout_s
    found: dict[str, dict[str, Any] | None] = {}
    left = list(tasks)
    while True:
        found |= look(urls, left)
        left = [task for task in left if (one := found[task]) is not None and one["state"] not in TERMINAL]
        if not left or time.monotonic() > end:
            return found
        time.sleep(0.25)


def unsettled(found: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Those that are there and have not ended."""
    return [task for task, one in found.items() if one is not None and one["state"] not in TERMINAL]


@contextlib.contextmanager
def caller(url: str) -> Iterator[Caller]:
    """A connection that is closed afterwards."""
    one = Caller(url)
    try:
        yield one
    finally:
        one.close()
