"""Clients that send requests to pools and models."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2

ID_HEADERS = ("Daybreak-Group", "Daybreak-Worker")
"""Answers of a pool have the first header: the id of the group that answered. Answers of a model have the second: the
id of the worker."""


def answered_by(answer: httpx2.Response) -> str:
    """The id of the group, or of the worker, that answered; empty if none did."""
    return next((answer.headers[name] for name in ID_HEADERS if name in answer.headers), "")


@contextmanager
def open_streams(
    url: str, count: int, wish: Mapping[str, Any], *, deadline_s: float
) -> Iterator[list[httpx2.Response]]:
    """Send ``count`` requests at once, and wait until each answer has begun. When the context ends, the answers
    are closed.

    ``wish``: the body, which says how the workload ``echo-serve`` answers.
    """
    with httpx2.Client(timeout=deadline_s, headers={"Daybreak-Deadline-S": str(deadline_s)}) as client:

        def begin(_: int) -> httpx2.Response:
            return client.send(client.build_request("POST", url, json=wish), stream=True)

        with ThreadPoolExecutor(count) as threads:
            answers = list(threads.map(begin, range(count)))
        try:
            yield answers
        finally:
            for answer in answers:
                answer.close()


class Load:
    """Clients that each send one request after the other until the context ends. Each answer is read to its end.

    ``wish``: the body of each request.
    """

    def __init__(self, url: str, wish: Mapping[str, Any], *, clients: int, deadline_s: float) -> None:
        self.statuses: Counter[int | str] = Counter()
        """How often each status came. An answer that breaks off after it has begun counts as ``cut off``."""
        self.groups: Counter[str] = Counter()
        """How often each group, or each worker, answered."""
        self._url = url
        self._wish = wish
        self._deadline_s = deadline_s
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx2.Client(timeout=2 * self._deadline_s) as client:
            while not self._stopped.is_set():
                request = client.build_request(
                    "POST", self._url, json=self._wish, headers={"Daybreak-Deadline-S": str(self._deadline_s)}
                )
                answer = client.send(request, stream=True)
                try:
                    answer.read()
                    self.statuses[answer.status_code] += 1
                    self.groups[answered_by(answer)] += 1
                except httpx2.TransportError:
                    self.statuses["cut off"] += 1
                finally:
                    answer.close()
