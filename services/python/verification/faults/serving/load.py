"""Clients that send requests one after the other until they are stopped, and record what they see.

A client has a connection to each gateway. If a connection breaks before the first byte of the answer, the
client sends the request again, to another gateway, as long as the deadline allows. It does the same if a
gateway answers that it is shutting down. After the first byte, it never sends the request again. These are
the rules for clients in docs/08-serving.md.

The history has a line ``request`` when a request begins, a line ``send`` for each time that it is sent, and, at the
end, lines ``ran`` from the logs of the groups. The checker derives the outcome of the request from these lines.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from testkit.waiting import wait_until
from verification.faults.cluster import FaultCluster
from verification.faults.serving.http_client import Client, Received
from verification.faults.serving.workload import PID_HEADER
from verification.faults.wish import Wish

DEADLINE_S = 30.0
_RETRY_PAUSE_S = 0.05
Chooser = Callable[[random.Random], Wish]


class ServingLoad:
    """The clients, on a thread with an event loop of its own. They stop at :meth:`stop`, or when the context ends."""

    def __init__(
        self,
        cluster: FaultCluster,
        *,
        path: str,
        clients: int,
        wish: Chooser,
        seed: int,
        deadline_s: float = DEADLINE_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster = cluster
        self._history = cluster.history
        self._path = path
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._clients = clients
        self._wish = wish
        self._seed = seed
        self._deadline_s = deadline_s
        self._stopping = threading.Event()
        self._numbers = 0
        self.finished = 0
        """The number of requests that have ended."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(self._deadline_s + 10)

    def wait_for(self, requests: int, *, timeout_s: float = 120.0) -> None:
        """Wait until this many more requests have ended, or no client runs any more. :raises TimeoutError: after
        ``timeout_s``."""
        goal = self.finished + requests
        wait_until(
            lambda: self.finished >= goal or not self._thread.is_alive(), timeout_s, f"{requests} requests"
        )

    def stop(self) -> None:
        """Let each client finish its request, and then record what the groups have run.

        :raises TimeoutError: if a client has not ended 10 s after the longest deadline.
        """
        self._stopping.set()
        self._thread.join(self._deadline_s + 10)
        if self._thread.is_alive():
            raise TimeoutError("a client still runs although its deadline passed long ago")
        record_runs(self._cluster)
        self._history.note("load", kind="end", requests=self.finished)
        self._history.flush()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(index) for index in range(self._clients)))

    async def _client(self, index: int) -> None:
        rng = random.Random(f"{self._seed}/{index}")
        connections = [_connection(url) for url in self._cluster.urls]
        try:
            while not self._stopping.is_set():
                self._numbers += 1
                await self._request(self._numbers, self._wish(rng), connections, rng)
                self.finished += 1
        finally:
            for connection in connections:
                connection.close()

    async def _request(self, number: int, wish: Wish, connections: list[Client], rng: random.Random) -> None:
        self._history.note(
            "request", kind="begin", request=number, wish=asdict(wish), deadline_s=self._deadline_s
        )
        until = time.monotonic() + self._deadline_s
        gateway = rng.randrange(len(connections))
        send = 0
        while (left_s := until - time.monotonic()) > 0:
            send += 1
            began = time.monotonic()
            received = await connections[gateway].post(
                self._path,
                wish.body(number, send),
                headers={"Daybreak-Deadline-S": f"{left_s:.3f}", **self._headers},
                timeout_s=left_s,
            )
            kind = _kind(received)
            self._note(number, send, f"gateway-{gateway}", began, received, kind)
            if kind not in ("broken", "closing"):
                return
            gateway = (gateway + 1) % len(connections)
            await asyncio.sleep(_RETRY_PAUSE_S)

    def _note(
        self, number: int, send: int, gateway: str, began: float, received: Received, kind: str
    ) -> None:
        since = self._history.began
        self._history.note(
            "send",
            kind=kind,
            request=number,
            send=send,
            gateway=gateway,
            began=round(began - since, 6),
            first=None if received.first is None else round(received.first - since, 6),
            status=received.status,
            pid=int(received.headers.get(PID_HEADER, 0)),
            size=received.size,
            crc=received.crc,
            error=received.error or received.body[:300].decode("utf-8", "replace"),
        )


def _kind(received: Received) -> str:
    """How a send ended: ``complete``, ``cut`` (after the first byte), ``broken`` (before it), ``late`` or ``closing``
    (the gateway shuts down).
    """
    if received.complete:
        return "closing" if _is_closing(received) else "complete"
    if received.first is not None:
        return "cut"
    return "late" if received.error == "timeout" else "broken"


def _is_closing(received: Received) -> bool:
    if received.status != 503:
        return False
    try:
        return bool(json.loads(received.body)["code"] == "shutting_down")
    except (ValueError, KeyError, TypeError):
        return False


def _connection(url: str) -> Client:
    address = urlsplit(url)
    return Client(address.hostname or "127.0.0.1", address.port or 80)


def record_runs(cluster: FaultCluster) -> None:
    """Copy the logs of the groups or engines into the history, with times in seconds since the history began."""
    for path in sorted(runs_folder(cluster.folder).glob("*.jsonl")):
        for text in path.read_text().splitlines(keepends=True):
            if text.endswith("\n"):
                line = json.loads(text)
                at = round(line.pop("at") - cluster.history.began, 6)
                cluster.history.note("ran", kind=line.pop("kind"), at=at, **line)


def runs_folder(folder: Path) -> Path:
    """The folder in which the groups of a cluster log their runs."""
    return folder / "runs"
