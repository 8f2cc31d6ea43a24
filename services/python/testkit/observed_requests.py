"""The requests of the run in :mod:`testkit.observed`. Some are answered or cut off, others wait or are refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testkit.system import request
from testkit.waiting import wait_until

ANSWERS = "answers"
"""A pool with one group, which answers :data:`CAPACITY` requests at once. Up to :data:`LINE` more requests wait."""
CAPACITY, LINE = 4, 20
SETTINGS = {
    "POOLS__ANSWERS__WORKLOAD": "echo-serve",
    "POOLS__ANSWERS__CAPACITY": str(CAPACITY),
    "POOLS__ANSWERS__CPUS_PER_RANK": "0.25",
    "ROUTER__MAX_WAITING": str(LINE),
}


class ObservedRequests:
    """Sends requests to pools of kind ``online``. ``gateway``: the address of the API."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway

    def ask(self, *, pool: str = ANSWERS, deadline_s: float = 30.0, **wish: Any) -> int:
        """Send a request to the group of a pool and read the answer.

        :returns: the status; 0 if no complete answer came.
        """
        outgoing = urllib.request.Request(
            f"{self._gateway}/v1/pools/{pool}/serve/",
            data=json.dumps(wish).encode(),
            headers={"content-type": "application/json", "Daybreak-Deadline-S": str(deadline_s)},
        )
        try:
            with urllib.request.urlopen(outgoing, timeout=deadline_s + 30) as response:
                response.read()
                return int(response.status)
        except urllib.error.HTTPError as exc:
            return exc.code
        except (OSError, http.client.HTTPException):
            return 0

    def ask_often(
        self, times: int, *, pool: str = ANSWERS, deadline_s: float = 30.0, **wish: Any
    ) -> list[int]:
        """Send ``times`` requests at once. :returns: their statuses."""
        with ThreadPoolExecutor(times) as threads:
            return list(
                threads.map(lambda _: self.ask(pool=pool, deadline_s=deadline_s, **wish), range(times))
            )

    def open_request(self, url: str, **wish: Any) -> socket.socket:
        """Send a request whose answer nobody reads. The request ends when the caller closes the socket."""
        to, body = urllib.parse.urlsplit(url), json.dumps(wish).encode()
        head = f"POST {to.path or '/'} HTTP/1.1\r\nhost: {to.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
        assert to.hostname is not None
        connection = socket.create_connection((to.hostname, to.port or 80))
        connection.sendall(head.encode() + body)
        return connection

    def _is_full(self, url: str) -> bool:
        """Send a request to a group. :returns: whether the group refuses it."""
        try:
            with urllib.request.urlopen(url, data=b"{}", timeout=30):
                return False
        except urllib.error.HTTPError as exc:
            return exc.code == 503

    def answering_group(self, pool: str = ANSWERS) -> str:
        """Wait until a group of the pool accepts requests. :returns: its endpoint."""

        def look() -> str | None:
            groups = request(f"{self._gateway}/v1/pools/{pool}")["groups"]
            return next((group["endpoint"] for group in groups if group["state"] in {"idle", "busy"}), None)

        return wait_until(look, 180, f"the group of {pool}")

    def play(self) -> None:
        """Send requests that are answered, that are cut off, that wait, and that are refused."""
        self.answering_group()
        for _ in range(4):
            assert set(self.ask_often(6, latency_s=0.3)) == {200}
        assert self.ask(chunks=5, chunk_s=0.1, tokens=20) == 200
        assert self.ask(chunks=2, fault="error", fault_at=2) == 0
        # Each request takes 1 s, so that even a busy machine sends all of them before the first one ends.
        statuses = set(self.ask_often(CAPACITY + LINE + 6, latency_s=1.0))
        assert statuses == {200, 503}, statuses
        with contextlib.ExitStack() as others:
            group = self.answering_group()
            for _ in range(CAPACITY):
                others.enter_context(self.open_request(group, latency_s=30.0))
            wait_until(lambda: self._is_full(group), 30, "the group to have read all requests")
            # The deadline passes in a pause between two of the gateway's tries, not during a try.
            status = self.ask(deadline_s=3.0)
            assert status == 503, status
